"""What a commit will write."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.ledger.changes import (
    Anchor,
    Blind,
    Change,
    DeadLetter,
    DocumentChange,
    Hold,
    Numbers,
    Observation,
    Suspicion,
    TicksRead,
    UpdatesRead,
)
from monitor.ledger.head import Head, Suspect, account_digest, level_digest
from monitor.ledger.plan import Committed, Plan, plan_commit
from monitor.ledger.records import AccountVersion, read_account
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition, chain_hash


def _state() -> Committed:
    return Committed(0, Head.first("ledger", 1, 0))


def _see(level: Level, *, unknown: str | None = None, n: int = 1, tick: int = 0, account: str = "a", pool: str = "cross") -> Observation:
    return Observation(account, pool, level, unknown, TickPosition(1, n, tick), b"{}")


def _apply(state: Committed, *changes: Change, stored: dict[str, bytes | None] | None = None) -> Plan:
    plan = plan_commit(state, changes, stored or {})
    state.take(plan)
    return plan


def _bodies(plan: Plan) -> list[dict[str, Any]]:
    return [
        json.loads(str(write[4], "utf-8")) for write in plan.writes if write[:2] == ("XADD", "{0}:events") and isinstance(write[4], bytes)
    ]


def test_a_change_of_level_is_one_row() -> None:
    """Row, level record and head move together."""
    state = _state()

    plan = _apply(state, _see(Level.WATCH))

    assert [(body["previous"], body["level"], body["rev"], body["episode"]) for body in _bodies(plan)] == [("healthy", "watch", 1, 1)]
    assert state.levels["a/cross"].level is Level.WATCH
    assert (state.head.seq, state.head.levels, state.head.batch, state.head.n) == (1, 1, 1, 1)


def test_the_same_verdict_again_is_no_row() -> None:
    """Whoever observes again what is committed writes nothing: a reconcile cannot duplicate."""
    state = _state()
    _apply(state, _see(Level.WATCH))

    plan = _apply(state, _see(Level.WATCH, n=2))

    assert (plan.rows, plan.unchanged) == (0, 1)


def test_numbers_follow_their_verdict_and_no_other() -> None:
    """Numbers become a row that names the revision they belong to; once the verdict has changed again they are left out."""
    state = _state()
    numbers = Numbers("a", "cross", TickPosition(1, 1, 0), b'{"equity":"5"}')
    plan = _apply(state, _see(Level.WATCH), numbers)

    first, second = _bodies(plan)
    assert [second[key] for key in ("kind", "account", "pool", "level", "rev", "equity")] == ["numbers", "a", "cross", "watch", 1, "5"]
    assert second["chain"] == chain_hash(first["chain"], first["id"], plan.writes[0][4])  # type: ignore[arg-type]
    assert (state.head.seq, state.levels["a/cross"].seq) == (2, 1)

    plan = _apply(state, _see(Level.MARGIN_CALL, n=2), numbers)
    assert (plan.rows, plan.stale) == (1, 1)


def test_numbers_of_a_pool_that_is_unknown_by_now_are_left_out() -> None:
    """The same place, but the level cannot be claimed any more."""
    state = _state()
    _apply(state, _see(Level.WATCH), _see(Level.WATCH, unknown="gone"))

    assert _apply(state, Numbers("a", "cross", TickPosition(1, 1, 0), b"{}")).rows == 0


def test_healthy_is_no_row_for_a_pool_never_seen() -> None:
    """A pool without a record is healthy."""
    plan = _apply(_state(), _see(Level.HEALTHY))

    assert (plan.rows, plan.levels) == (0, {})


def test_unknown_is_a_row_of_its_own() -> None:
    """The level stays the last one known; the reason is what changed."""
    state = _state()

    plan = _apply(state, _see(Level.HEALTHY, unknown="stale mark"), _see(Level.HEALTHY, n=2))

    assert [(body["level"], body["unknown"], body["previous_unknown"]) for body in _bodies(plan)] == [
        ("healthy", "stale mark", None),
        ("healthy", None, "stale mark"),
    ]


def test_an_excursion_inside_a_batch_is_two_rows() -> None:
    """Each change is written, in order, although the pool ends where it began."""
    plan = _apply(_state(), _see(Level.LIQUIDATION), _see(Level.HEALTHY, tick=1))

    assert [body["level"] for body in _bodies(plan)] == ["liquidation", "healthy"]


def test_an_episode_is_a_stay_above_healthy() -> None:
    """It counts the times healthy was left."""
    plan = _apply(_state(), _see(Level.WATCH), _see(Level.MARGIN_CALL, n=2), _see(Level.HEALTHY, n=3), _see(Level.WATCH, n=4))

    assert [body["episode"] for body in _bodies(plan)] == [1, 1, 1, 2]


def test_an_observation_from_before_the_last_decision_is_left_out() -> None:
    """A replay that should have skipped it writes no false row; it is counted."""
    state = _state()
    _apply(state, _see(Level.WATCH, n=5, tick=3))

    plan = _apply(state, _see(Level.LIQUIDATION, n=5, tick=2))

    assert (plan.rows, plan.stale) == (0, 1)


def test_another_epoch_is_not_called_old() -> None:
    """Numbers are compared inside one epoch only: a wiped cache with a clock set back must not silence a pool."""
    state = _state()
    _apply(state, Observation("a", "cross", Level.WATCH, None, TickPosition(1000, 5, 0), b"{}"))

    plan = _apply(state, Observation("a", "cross", Level.LIQUIDATION, None, TickPosition(900, 1, 0), b"{}"))

    assert plan.rows == 1


def test_cursors_move_only_with_their_change() -> None:
    """What is not among the changes stays."""
    state = _state()

    _apply(state, TicksRead("5-0", 1000, 3))
    assert (state.head.ticks, state.head.tick_e, state.head.tick_n, state.head.updates) == ("5-0", 1000, 3, "0-0")

    _apply(state, UpdatesRead("7-0"), Suspicion(Suspect("8-0", 1)), Anchor(0, "h"))
    assert (state.head.ticks, state.head.updates, state.head.suspect, state.head.trim_hash) == ("5-0", "7-0", Suspect("8-0", 1), "h")


def test_a_blind_row_is_chained_like_the_others() -> None:
    """It has a sequence number and a hash, and belongs to no pool."""
    state = _state()
    start = state.head.hash

    plan = _apply(state, Blind(None, TickPosition(1, 2, 0), "hole"))

    (body,) = _bodies(plan)
    assert (body["kind"], plan.rows, plan.blind_rows, state.head.seq, body["chain"]) == ("blind", 1, 1, 1, start)


def test_documents_are_ordered_by_epoch_and_sequence() -> None:
    """Only a greater pair is stored."""
    state = _state()

    _apply(state, DocumentChange("a", 2, 1, b'{"n":1}'))
    older = _apply(state, DocumentChange("a", 1, 9, b'{"n":2}'), DocumentChange("a", 2, 1, b'{"n":3}'))
    assert (older.documents, state.accounts["a"]) == (0, AccountVersion.of(2, 1, b'{"n":1}', None))

    newer = _apply(state, DocumentChange("a", 2, 2, b'{"n":4}'))
    assert (newer.documents, state.accounts["a"].sequence, state.head.accounts) == (1, 2, 1)


def _stored(plan: Plan, account: str) -> tuple[AccountVersion, bytes | None] | None:
    write = next(write for write in plan.writes if write[:2] == ("HSET", "{0}:accounts"))
    record = dict(zip(write[2::2], write[3::2], strict=True))[account]
    assert isinstance(record, bytes)
    return read_account(account, record)


def test_a_removed_account_leaves_its_version() -> None:
    """So an older update that comes late does not revive it."""
    state = _state()
    _apply(state, DocumentChange("a", 1, 1, b"{}"))

    plan = _apply(state, DocumentChange("a", 1, 2, None))

    assert _stored(plan, "a") == (AccountVersion(1, 2, 0, None), None)
    assert _apply(state, DocumentChange("a", 1, 1, b"{}")).documents == 0


def test_a_hold_keeps_the_document_and_a_document_lifts_it() -> None:
    """The stored document stands until a valid one comes."""
    state = _state()
    _apply(state, DocumentChange("a", 1, 1, b'{"n":1}'))

    held = _apply(state, Hold("a", "poisoned"), stored={"a": b'{"n":1}'})
    assert _stored(held, "a") == (AccountVersion.of(1, 1, b'{"n":1}', "poisoned"), b'{"n":1}')

    lifted = _apply(state, DocumentChange("a", 1, 2, b'{"n":2}'))
    assert _stored(lifted, "a") == (AccountVersion.of(1, 2, b'{"n":2}', None), b'{"n":2}')


def test_a_hold_in_the_commit_of_its_document_keeps_that_one() -> None:
    """What the same commit wrote before counts, not what was stored."""
    plan = _apply(_state(), DocumentChange("a", 1, 1, b'{"n":1}'), Hold("a", "poisoned"), stored={"a": None})

    assert _stored(plan, "a") == (AccountVersion.of(1, 1, b'{"n":1}', "poisoned"), b'{"n":1}')


def test_a_hold_on_an_account_never_heard_of_gives_way_to_its_first_document() -> None:
    """Even to one of epoch 0 and sequence 0."""
    state = _state()
    _apply(state, Hold("a", "poisoned"), stored={"a": None})

    assert _apply(state, DocumentChange("a", 0, 0, b"{}")).documents == 1


def test_a_dead_letter_keeps_the_bytes() -> None:
    """Source, cause, raw bytes and where it stood."""
    plan = _apply(_state(), DeadLetter("updates", "not JSON", b"\xff{", "5-1"))

    assert plan.writes == [("XADD", "{0}:dead", "*", "source", "updates", "cause", "not JSON", "raw", b"\xff{", "id", "5-1")]


_POOLS = st.sampled_from(["a", "b", "c"])
_CHANGES = st.one_of(
    st.builds(
        lambda account, level, unknown: _see(level, unknown=unknown, account=account, n=1),
        _POOLS,
        st.sampled_from(Level),
        st.sampled_from([None, None, "stale", "missing"]),
    ),
    st.builds(lambda account, sequence: DocumentChange(account, 1, sequence, b'{"n":%d}' % sequence), _POOLS, st.integers(0, 5)),
    st.builds(lambda account: Hold(account, "poisoned"), _POOLS),
    st.just(Blind(None, None, "hole")),
)


@settings(max_examples=200)
@given(changes=st.lists(_CHANGES, max_size=40), cuts=st.sets(st.integers(1, 39)))
def test_cutting_a_batch_changes_nothing_but_the_number_of_commits(changes: list[Change], cuts: set[int]) -> None:
    """Rows, chain, records and digest are the same however the changes are split; the digest is that of the records, the chain holds."""
    whole, parts = _state(), _state()
    rows = _bodies(_apply(whole, *changes))
    found = []
    edges = [0, *sorted(cut for cut in cuts if cut < len(changes)), len(changes)]
    for start, stop in zip(edges, edges[1:], strict=False):
        plan = _apply(parts, *changes[start:stop])
        found += _bodies(plan)

    assert found == rows
    assert (parts.head.hash, parts.head.digest, parts.levels, parts.accounts) == (
        whole.head.hash,
        whole.head.digest,
        whole.levels,
        whole.accounts,
    )
    digest = 0
    for name, record in whole.levels.items():
        digest ^= level_digest(name, record.rev)
    for name, version in whole.accounts.items():
        digest ^= account_digest(name, version.epoch, version.sequence, version.hold)
    assert whole.head.digest == digest
    assert (whole.head.levels, whole.head.accounts) == (len(whole.levels), len(whole.accounts))
    chain, seq = Head.first("ledger", 1, 0).hash, 0
    for write in plan_commit(_state(), changes, {}).writes:
        if write[1] == "{0}:events":
            seq += 1
            body = write[4]
            assert isinstance(body, bytes)
            assert write[2] == f"{seq}-0"
            chain = chain_hash(chain, f"0/{seq}-0", body)
            assert write[6] == chain
    assert chain == whole.head.hash
