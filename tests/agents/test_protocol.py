import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflexor_agents.config import ReflectConfig, from_dict, paper
from preflexor_agents.errors import BackendError, ConfigError
from preflexor_agents.events import Retrieved, RoundFinished, RoundStarted, Steered, from_json, to_json
from preflexor_agents.reflection.protocol import next_step
from preflexor_agents.reflection.state import advance, start
from tests.agents.driving import Run, drive, passage

DEFAULT = ReflectConfig()


def decisions(run: Run) -> list[RoundFinished]:
    return [e for e in run.events if isinstance(e, RoundFinished)]


def voices(**texts):
    """A reply per stage; a list is used up one by one, its last entry then stays."""
    left = {stage: list(t) if isinstance(t, list) else [t] for stage, t in texts.items()}

    def reply(step, call):
        queue = left[step.stage]
        return queue.pop(0) if len(queue) > 1 else queue[0]

    return reply


IMPROVES = {
    "draft": "<|thinking|>t1<|/thinking|>It is 87.",
    "critique": "Wrong number. Verdict: revise",
    "revise": "t2",
    "answer": ["It is 4.5.", "It is 4.6."],
    "integrate": "It is 4.5, in short.",
}


def judge_prefers(better):
    """A judge that reads the two answers and prefers the one that holds `better`, wherever it stands."""

    def verdict(call):
        text = call.messages[-1].content
        a, b = text.split("\nA:\n")[1].split("\n\nB:\n")
        b = b.split("\n\n")[0]
        if (better in a) == (better in b):
            return "Better: tie"
        return "Better: A" if better in a else "Better: B"

    return verdict


def with_judge(texts, better):
    reply, verdict = voices(**texts), judge_prefers(better)
    judging = {"gate", "select", "choose"}
    return lambda step, call: verdict(call) if step.stage in judging else reply(step, call)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_paper_critic_makes_3n_minus_1_calls_in_the_published_order(n):
    run = drive(paper("critic", n), voices(**IMPROVES))
    assert run.stages == ["draft", *["critique", "revise", "answer"] * (n - 1), "integrate"]
    assert len(run.calls) == 3 * n - 1
    assert run.state.finished.integrated and run.state.finished.answer == "It is 4.5, in short."


@pytest.mark.parametrize("n", [1, 2, 3])
def test_paper_self_makes_2n_plus_2_calls_and_leaves_the_first_answer_out_of_the_merge(n):
    draft = "<|thinking|>t<|/thinking|><|reflect|>look again<|/reflect|>FIRST answer"
    reply = voices(draft=draft, revise="t2", answer="<|reflect|>and again<|/reflect|>later answer", integrate="merged")
    run = drive(paper("self", n), reply)
    assert run.stages == ["draft", *["revise", "answer"] * n, "integrate"]
    assert len(run.calls) == 2 * n + 2
    merge = run.calls[-1][1].messages[-1].content
    assert "FIRST answer" not in merge and merge.count("later answer") == n


def test_paper_samples_every_call_as_published_and_prefills_the_improved_thinking():
    run = drive(paper("critic", 3), voices(**IMPROVES))
    for _, call in run.calls:
        s = call.sampling
        published = (s.temperature, s.top_k, s.top_p, s.repeat_penalty, s.max_tok)
        assert published == (0.1, 50, 0.9, 1.0, 3000)
    prefilled = [call.thinking for step, call in run.calls if step.stage == "answer"]
    assert prefilled == ["t2", "t2"]


def test_paper_takes_every_revision_and_merges_all_of_them():
    run = drive(paper("critic", 3), voices(**IMPROVES))
    assert [d.accepted for d in decisions(run)] == [True, True, True]
    merge = run.calls[-1][1].messages[-1].content
    assert all(text in merge for text in ("It is 87.", "It is 4.5.", "It is 4.6."))


def test_self_variant_works_on_when_the_model_wrote_no_reflection():
    run = drive(paper("self", 1), voices(**(IMPROVES | {"draft": "<|thinking|>t<|/thinking|>a", "answer": "b"})))
    assert run.stages == ["draft", "revise", "answer", "integrate"]
    assert "check every step" in run.calls[1][1].messages[-1].content


def test_a_better_revision_wins_in_both_orders_and_is_taken():
    run = drive(DEFAULT, with_judge(IMPROVES, "4.5"))
    second = decisions(run)[1]
    assert second.accepted and second.score == 1.0
    assert run.state.finished.answer in ("It is 4.5.", "It is 4.5, in short.")


def test_a_worse_revision_is_refused_and_the_answer_so_far_stays():
    run = drive(replace(DEFAULT, integrate="never"), with_judge(IMPROVES, "87"))
    assert [d.accepted for d in decisions(run)] == [True, False, False]
    assert run.state.finished.answer == "It is 87." and run.state.finished.best_round == 1


@pytest.mark.parametrize("letter", ["A", "B"])
def test_a_judge_that_always_names_one_position_can_not_replace_the_answer(letter):
    reply = voices(**IMPROVES, gate=f"Better: {letter}", choose=f"Better: {letter}")
    run = drive(DEFAULT, reply)
    gated = decisions(run)[1:]
    assert gated and all(not d.accepted and d.score == 0.5 for d in gated)
    assert run.state.finished.answer == "It is 87." and not run.state.finished.integrated


def test_the_judge_sees_both_orders_and_not_which_answer_is_the_one_so_far():
    run = drive(DEFAULT, with_judge(IMPROVES, "4.5"))
    first, second = [call.messages[-1].content for step, call in run.calls if step.stage == "gate"][:2]
    assert first.index("It is 87.") < first.index("It is 4.5.")
    assert second.index("It is 4.5.") < second.index("It is 87.")
    swapped = first.replace("It is 87.", "X").replace("It is 4.5.", "It is 87.").replace("X", "It is 4.5.")
    assert swapped == second


def test_an_unreadable_judge_counts_as_a_tie():
    run = drive(DEFAULT, voices(**IMPROVES, gate="hm", choose="hm"))
    assert decisions(run)[1].score == 0.5 and not decisions(run)[1].accepted


def test_best_of_n_keeps_the_candidate_that_wins_its_comparisons():
    drafts = ["It is 1.", "It is 4.5.", "It is 2."]
    config = replace(DEFAULT, candidates=3, rounds=1, integrate="never")
    run = drive(config, with_judge(IMPROVES | {"draft": drafts}, "4.5"))
    assert run.state.finished.answer == "It is 4.5."
    assert run.stages.count("select") == 4
    seeds = [call.seed for step, call in run.calls if step.stage == "draft"]
    assert len(set(seeds)) == 3


def test_equal_candidates_are_not_compared():
    config = replace(DEFAULT, candidates=4, rounds=1, integrate="never")
    run = drive(config, voices(draft="It is 4.5 [1]."))
    assert run.stages == ["draft"] * 4


def test_the_run_converges_when_the_critic_finds_nothing():
    run = drive(DEFAULT, voices(**(IMPROVES | {"critique": "Fine. Verdict: sound"})))
    assert run.state.finished.stop_reason == "converged"
    assert run.stages == ["draft", "critique"]


def test_nothing_is_searched_for_a_critic_that_found_nothing():
    run = drive(DEFAULT, voices(**(IMPROVES | {"critique": "Fine. Verdict: sound"})), passages=[passage(1)])
    assert [e.round for e in run.events if isinstance(e, Retrieved)] == [1]


def test_the_run_converges_when_a_revision_changes_nothing():
    run = drive(DEFAULT, voices(**(IMPROVES | {"answer": "it is 87"})))
    assert run.state.finished.stop_reason == "converged" and run.stages[-1] == "answer"


def test_token_budget_is_shared_out_and_ends_the_run_with_the_best_so_far():
    run = drive(replace(DEFAULT, budget_tok=6), with_judge(IMPROVES, "4.5"))
    assert run.state.finished.stop_reason == "budget_tokens"
    assert run.state.finished.answer == "It is 87."


def test_second_budget_ends_the_run_with_the_best_so_far():
    run = drive(replace(DEFAULT, budget_s=2.5), with_judge(IMPROVES, "4.5"), seconds_per_call=1.0)
    assert run.state.finished.stop_reason == "budget_seconds"
    assert run.stages == ["draft", "critique", "revise"]
    assert run.state.finished.answer == "It is 87."


def test_a_cancelled_draft_gives_what_was_written():
    run = drive(DEFAULT, with_judge(IMPROVES, "4.5"), cancel_when=lambda s: bool(s.done("draft") or s.answers))
    assert run.state.finished.stop_reason == "cancelled" and run.state.finished.answer == "It is 87."


def test_steering_waits_for_the_next_round_and_reaches_every_later_prompt():
    def between(state, events):
        drafted = bool(state.done("draft")) and not any(isinstance(e, Steered) for e in events)
        return [Steered(text="use SI units")] if drafted else []

    run = drive(DEFAULT, with_judge(IMPROVES, "4.5"), between=between)
    rounds = [e for e in run.events if isinstance(e, RoundStarted)]
    assert [r.steering for r in rounds[:2]] == [(), ("use SI units",)]
    later = [call.messages[-1].content for step, call in run.calls if step.round == 2]
    assert later and all("The user adds: use SI units" in text for text in later)
    assert "SI units" not in run.calls[0][1].messages[-1].content


def test_steering_after_the_last_round_gets_a_round_of_its_own():
    def between(state, events):
        late = state.round == 1 and not state.round_open and not state.waiting
        return [Steered(text="shorter")] if late else []

    run = drive(replace(DEFAULT, rounds=1, integrate="never"), with_judge(IMPROVES, "4.5"), between=between)
    assert [e.round for e in run.events if isinstance(e, RoundStarted)] == [1, 2]


def test_each_later_round_searches_again_and_passages_keep_their_numbers():
    run = drive(DEFAULT, with_judge(IMPROVES, "4.5"), passages=[passage(1), passage(2)])
    queries = [e.query for e in run.events if type(e).__name__ == "Retrieved"]
    assert queries[0] == "How tough is nacre?" and "Wrong number" in queries[1]
    assert [p.chunk_id for p in run.state.passages] == [1, 2]
    assert run.state.cited is not None


def test_roles_share_the_beginning_of_their_prompts():
    run = drive(DEFAULT, with_judge(IMPROVES, "4.5"), passages=[passage(1)])
    users = {call.messages[-1].content.split("Question: How tough is nacre?")[0] for _, call in run.calls}
    assert len(users) == 1


@pytest.mark.parametrize("stage", ["critique", "revise", "answer", "gate", "integrate", "choose"])
def test_a_failed_call_is_recorded_and_the_answer_so_far_survives(stage):
    broken = with_judge(IMPROVES, "4.5")
    run = drive(DEFAULT, lambda step, call: BackendError("gone") if step.stage == stage else broken(step, call))
    assert run.state.finished.answer and run.state.finished.stop_reason in ("rounds", "converged")


def test_a_run_without_any_draft_fails_with_the_reason():
    run = drive(DEFAULT, lambda step, call: BackendError("server gone"))
    assert run.state.finished.stop_reason == "failed" and "server gone" in run.state.finished.error


def test_an_empty_revision_never_replaces_an_answer():
    run = drive(paper("critic", 2), voices(**(IMPROVES | {"answer": ""})))
    assert [d.accepted for d in decisions(run)] == [True, False]


@given(cut=st.integers(0, 60), candidates=st.integers(1, 3), better=st.sampled_from(["4.5", "87", "4.6"]))
@settings(max_examples=60, deadline=None)
def test_a_saved_run_goes_on_exactly_where_it_stopped(cut, candidates, better):
    config = replace(DEFAULT, candidates=candidates)
    whole = drive(config, with_judge(IMPROVES, better), passages=[passage(1)])
    saved = json.loads(json.dumps([to_json(e) for e in whole.events[: 1 + cut]]))
    events = [from_json(item) for item in saved]
    state = start(events[0])
    for event in events[1:]:
        state = advance(state, event)
    live = start(whole.events[0])
    for event in whole.events[1 : 1 + cut]:
        live = advance(live, event)
    assert state == live and next_step(state) == next_step(live)


@given(
    seed=st.integers(0, 10_000),
    rounds=st.integers(1, 4),
    candidates=st.integers(1, 3),
    variant=st.sampled_from(["critic", "self"]),
    integrate=st.sampled_from(["never", "always", "or_select"]),
    gate=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_words_and_failures_lead_to_an_end(seed, rounds, candidates, variant, integrate, gate):
    import random

    rng = random.Random(seed)
    words = [
        "",
        "x",
        "Better: A",
        "better b",
        "Verdict: sound",
        "<|thinking|>t",
        "<think>a</think>b",
        "Verdict: revise",
    ]
    config = ReflectConfig(
        rounds=rounds, candidates=candidates, variant=variant, integrate=integrate, gate=gate, budget_tok=10_000
    )
    run = drive(config, lambda step, call: BackendError("no") if rng.random() < 0.1 else rng.choice(words))
    assert run.state.finished is not None
    rounds_seen = [e.round for e in run.events if isinstance(e, RoundFinished)]
    assert rounds_seen == sorted(set(rounds_seen)) and len(rounds_seen) <= rounds


@pytest.mark.parametrize(
    ("field", "value"),
    [("rounds", 0), ("candidates", 0), ("budget_tok", 0), ("budget_s", 0.0), ("variant", "x"), ("seed", -1)],
)
def test_a_wrong_setting_is_named(field, value):
    with pytest.raises(ConfigError, match=field):
        replace(DEFAULT, **{field: value})


def test_an_unknown_config_field_is_named():
    with pytest.raises(ConfigError, match="colour"):
        from_dict({"colour": "red"})
