"""Some hostile input at every test run; `python tests/fuzz.py --cases 5000` tries much more."""

import fuzz


def test_hostile_files_are_accepted_or_refused_in_one_line() -> None:
    outcomes = fuzz.run(cases=60, seed=7)
    problems = [
        f"--seed 7 --only {o.kind}:{o.number} {o.said}" for o in outcomes if o.verdict == "problem"
    ]
    assert not problems
    assert {outcome.verdict for outcome in outcomes} == {"accepted", "refused"}
