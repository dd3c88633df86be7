"""Erasure: what is sealed is read with its key, and by nobody without it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.envelope import NewEvent
from esim.erasure import ERASED, Vault
from esim.errors import InvalidArgument, NotAStore, NotWritten
from esim.event import Event
from esim.projection import Key, Projection, Row, on
from esim.store import EventStore

pytest.importorskip(
    "cryptography", reason="erasure needs the library cryptography: pip install -e '.[erasure]'"
)


class Registered(Event):
    customer: str
    name: str


class Ordered(Event):
    customer: str
    amount: int


class Person(Row):
    customer: Key[str]
    name: str = ""
    amount: int = 0


VAULT = Vault()


class People(Projection[Person]):
    @on(Registered)
    def registered(self, event, rows):
        rows.put(Person(customer=event.customer, name=VAULT.open(event.name)))

    @on(Ordered)
    def ordered(self, event, rows):
        person = rows.get(event.customer)
        rows.put(person.but(amount=person.amount + event.amount))


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT, TEXT)
def test_what_is_sealed_for_a_subject_opens_again(subject, text):
    vault = Vault()
    sealed = vault.seal(subject, text)
    assert vault.open(sealed) == text
    assert sealed.startswith("sealed:")
    vault.forget(subject)
    assert vault.open(sealed) == ERASED


def test_a_projection_and_its_rebuild_work_after_somebody_is_forgotten():
    with EventStore() as store:
        for who, name in (("ann", "Ann Smith"), ("bob", "Bob Müller")):
            store.append(f"Customer/{who}", Registered(customer=who, name=VAULT.seal(who, name)))
            store.append(f"Customer/{who}", Ordered(customer=who, amount=5))
        people = People(store)
        assert people.df().name.tolist() == ["Ann Smith", "Bob Müller"]
        VAULT.forget("ann")
        assert people.rebuild().df().name.tolist() == [ERASED, "Bob Müller"]
        assert people.df().amount.tolist() == [5, 5]
        assert "Ann" not in "".join(one.json for one in store.read())


def test_a_new_key_of_the_same_name_does_not_open_what_was_erased(tmp_path):
    """It stays erased, in every vault of the file; what the new key seals is read."""
    path = tmp_path / "people.keys"
    vault = Vault(path)
    before = [vault.seal("ann", "Ann")]
    for _ in range(2):
        vault.forget("ann")
        again = vault.seal("ann", "Ann again")
        assert [vault.open(text) for text in before] == [ERASED] * len(before)
        assert [Vault(path).open(text) for text in before] == [ERASED] * len(before)
        assert vault.open(again) == "Ann again"
        before.append(again)
    assert vault.subjects == ["ann"]


def test_a_rebuild_works_after_somebody_who_was_forgotten_came_back():
    with EventStore() as store:
        for name in ("Ann Smith", "Ann Jones"):
            store.append("Customer/ann", Registered(customer="ann", name=VAULT.seal("ann", name)))
            people = People(store).rebuild()
            assert people.df().name.tolist() == [name]
            VAULT.forget("ann")
        store.append("Customer/ann", Registered(customer="ann", name=VAULT.seal("ann", "A. Jones")))
        assert people.rebuild().df().name.tolist() == ["A. Jones"]


def test_an_append_that_is_repeated_is_the_same(tmp_path):
    event_id = UUID(int=7)
    for _ in range(2):
        vault = Vault(tmp_path / "people.keys")
        with EventStore(tmp_path / "log.duckdb") as store:
            event = Registered(customer="ann", name=vault.seal("ann", "Ann"))
            store.append("Customer/ann", NewEvent(event, event_id=event_id))
            assert store.position == 1


def test_keys_are_kept_in_a_file_for_its_owner_alone_and_thrown_away_there(tmp_path):
    path = tmp_path / "people.keys"
    sealed = Vault(path).seal("ann é", "Ann")
    assert Vault(path).open(sealed) == "Ann"
    assert repr(Vault(path)) == "<Vault 'people.keys': keys of 1 subjects>"
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    Vault(path).forget("ann é")
    assert Vault(path).open(sealed) == ERASED
    assert list(Vault(path).subjects) == []
    assert [each.name for each in tmp_path.iterdir()] == ["people.keys"]


def test_several_vaults_share_a_file(tmp_path):
    """None takes a key of another's away, and none brings back what another has thrown away."""
    path = tmp_path / "people.keys"
    one, other = Vault(path), Vault(path)
    ann, bob = one.seal("ann", "Ann"), other.seal("bob", "Bob")
    assert (one.open(bob), other.open(ann)) == ("Bob", "Ann")
    assert one.seal("ann", "Ann") == other.seal("ann", "Ann") == ann
    one.forget("ann")
    other.seal("eve", "Eve")
    assert (one.open(ann), other.open(ann), Vault(path).open(ann)) == (ERASED, ERASED, ERASED)
    assert one.subjects == ["bob", "eve"]


def test_many_processes_seal_at_once(tmp_path):
    path = tmp_path / "people.keys"
    script = """
import sys
from esim.erasure import Vault
for number in range(20):
    print(Vault(sys.argv[1]).seal(f"p-{number}", "text"))
"""
    command = [sys.executable, "-c", script, str(path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0] * 4
    assert len(set(told)) == 1
    assert len(Vault(path).subjects) == 20
    assert {Vault(path).open(line) for line in told[0].split()} == {"text"}


def test_a_key_that_is_thrown_away_is_not_left_in_the_file(tmp_path):
    path = tmp_path / "people.keys"
    vault = Vault(path)
    vault.seal("ann", "Ann")
    vault.seal("bob", "Bob")
    key = vault._key("ann")
    assert key is not None
    assert key in path.read_bytes()
    vault.forget("ann")
    assert key not in path.read_bytes()


def test_another_vault_cannot_read_it():
    sealed, other = Vault().seal("ann", "Ann"), Vault()
    assert other.open(sealed) == ERASED
    other.seal("ann", "x")
    with pytest.raises(InvalidArgument, match="cannot be opened: it was changed, or sealed by another vault"):
        other.open(sealed)


def test_a_sealed_text_that_was_changed_is_told():
    vault = Vault()
    sealed = vault.seal("ann", "Ann")
    for wrong in (sealed[:-4] + "AAA=", sealed + ":x", "sealed:", "sealed:YW5u:é"):
        with pytest.raises(InvalidArgument, match="cannot be opened"):
            vault.open(wrong)


def test_a_text_that_was_never_sealed_comes_back_as_it_is():
    assert Vault().open("Ann Smith") == "Ann Smith"


def test_what_is_no_text_is_told():
    vault = Vault()
    wrong: Any = 5
    for each in (lambda: vault.seal("ann", wrong), lambda: vault.seal(wrong, "x"), lambda: vault.open(wrong)):
        with pytest.raises(InvalidArgument, match="give text"):
            each()
    vault.seal("ann", "x")
    with pytest.raises(InvalidArgument, match=r"no key of 'anne'.*did you mean 'ann'"):
        vault.forget("anne")


@pytest.mark.parametrize("content", ["", "[]", "{}", "SQLite format 3\0", "\0"])
def test_a_file_of_another_kind_is_told_and_left_alone(tmp_path, content):
    path = tmp_path / "people.keys"
    path.write_text(content)
    with pytest.raises(NotAStore, match="no file of keys"):
        Vault(path)
    assert path.read_text() == content


def test_a_key_that_cannot_be_kept_seals_nothing(tmp_path):
    vault = Vault(tmp_path / "missing" / "people.keys")
    with pytest.raises(NotWritten, match="could not be kept"):
        vault.seal("ann", "Ann")
    assert list(vault.subjects) == []
