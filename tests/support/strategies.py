"""Values of any wire type, drawn from its own declaration: so that no kind can be added without its round trip being tried."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as mi

from mesh.core.law.roster import Bounds, Member, Operator, Role, Roster
from tests.core.kit import secret

__all__ = ["values_of"]


def values_of(kind: type) -> st.SearchStrategy[Any]:
    """Values of the wire type ``kind``."""
    if kind is Roster:
        return _rosters()
    return _of(mi.type_info(kind))


def _rosters() -> st.SearchStrategy[Roster]:
    """Sound ones only: no other can be made."""

    def make(n: int, epoch: int) -> Roster:
        keys = iter([secret(number).public for number in range(4 * n + 11)])
        members = [
            Member(
                name=f"n{index}", region="eu", operator="one", log_epoch=1,
                log_key=next(keys), witness_key=next(keys), attest_key=next(keys), decision_key=next(keys),
            )
            for index in range(n)
        ]  # fmt: skip
        f = (n - 1) // 3

        def role(count: int, threshold: int) -> Role:
            return Role(keys=[next(keys) for _ in range(count)], threshold=threshold)

        return Roster(
            mesh="dev", epoch=epoch, previous="", not_before_ms=0,
            members=members, operators={"one": Operator(key=next(keys), jurisdiction="de")}, f=f,
            k=(n + f) // 2 + 1, root=role(3, 2), issuers=role(1, 1),
            revoker=role(1, 1), policy={"payments": role(2, 2)}, approvers={"security": role(2, 1)}, handovers={},
            bounds=Bounds(
                heartbeat_ms=1000, stale_ms=5000, skew_ms=500, certify_ms=250, attest_stall_ms=5000, revocations_max=100_000,
                backlog_max=50_000,
            ),
            reason="The first roster.", issued_ms=0,
        )  # fmt: skip

    return st.builds(make, st.integers(1, 7), st.integers(1, 9))


def _of(info: mi.Type) -> st.SearchStrategy[Any]:
    match info:
        case mi.Metadata(type=inner):
            return _of(inner)
        case mi.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: _of(field.type) for field in fields}).filter(_encodable)
        case mi.StrType():
            return _strings(info)
        case mi.IntType(ge=ge, le=le):
            return st.integers(ge if ge is not None else 0, le if le is not None else 2**53 - 1)
        case mi.BoolType():
            return st.booleans()
        case mi.LiteralType(values=words):
            return st.sampled_from(words)
        case mi.UnionType(types=types):
            return st.one_of([_of(each) for each in types])
        case mi.ListType(item_type=item, min_length=low, max_length=high):
            return st.lists(_of(item), min_size=low or 0, max_size=min(high or 3, max(3, low or 0)))
        case mi.RawType():
            return st.just(msgspec.Raw(b'{"payload":""}'))
        case mi.DictType(key_type=key, value_type=value):
            return st.dictionaries(_of(key), _of(value), max_size=3)
        case _:
            msg = f"no strategy for {info}"
            raise AssertionError(msg)


def _strings(info: mi.StrType) -> st.SearchStrategy[str]:
    if info.pattern is not None:
        drawn = st.from_regex(info.pattern.replace("$", r"\Z"))
        return drawn.filter(lambda text: (info.min_length or 0) <= len(text) <= (info.max_length or 200))
    return st.text(st.characters(codec="utf-8"), min_size=info.min_length or 0, max_size=min(info.max_length or 20, 20))


def _encodable(value: Any) -> bool:
    return isinstance(value, msgspec.Struct)
