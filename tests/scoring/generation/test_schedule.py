"""Which prompts are read together and when."""

from __future__ import annotations

from optuna_demix.scoring.generation import Arguments, Prompt
from optuna_demix.scoring.generation.schedule import Group, Queue, common, grouped, without

SOME = Arguments(4, ("\n",))
HEADER = tuple(range(20))


def prompt(*ids, group="g"):
    return Prompt(ids, SOME, group)


def test_groups_are_kept_apart_and_share_what_they_begin_with():
    a = [prompt(*HEADER, 1), prompt(*HEADER, 1, 2, 3), prompt(*HEADER, 2)]
    b = [prompt(5, group="h"), prompt(5, 6, group="h")]
    first, second = grouped([a[0], b[0], a[1], a[2], b[1], a[0]])
    assert first == Group([a[1], a[0], a[2]], HEADER)
    assert second == Group([b[1], b[0]], ())  # not worth it


def test_the_last_token_of_a_prompt_is_never_shared():
    (group,) = grouped([prompt(*HEADER), prompt(*HEADER, 7)])
    assert group.shared == HEADER[:-1]
    (alone,) = grouped([prompt(*HEADER, 7)])
    assert alone.shared == ()


def test_truncated_prompts_spoil_no_common_beginning():
    whole = [prompt(*HEADER, n) for n in range(4)]
    cut = [prompt(*HEADER[5:], 1, 2), prompt(*HEADER[3:], 1, 2)]
    groups = grouped([cut[0], *whole, cut[1]])
    assert groups == [Group(whole, HEADER), Group([cut[1], cut[0]], ())]


def test_common():
    assert [common((1, 2, 3), other) for other in ((1, 2, 4), (1, 2), (), (2,))] == [2, 2, 0, 0]


def test_rows_are_filled_up_when_a_part_of_them_is_free():
    some = [prompt(n) for n in range(20)]
    queue = Queue([Group(some, HEADER), Group([prompt(1, group="h")], ())], rows=16)
    assert queue.joining(0) == (some[:16], HEADER)
    assert queue.joining(15) == ([], ())  # one free row is not worth a pass
    assert queue.joining(14) == (some[16:18], HEADER)
    assert queue.joining(0) == (some[18:], HEADER)
    assert queue.joining(2) == ([prompt(1, group="h")], ())
    assert not queue
    assert queue.joining(0) == ([], ())


def test_what_is_done_is_not_done_again():
    one, other = prompt(1), prompt(2)
    groups = [Group([one, other], HEADER), Group([prompt(3)], ())]
    assert list(without(groups, [one, prompt(3)])) == [Group([other], HEADER)]
