"""Asks judges whose model the engine has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

from jax.sharding import Mesh

from jaxorg.distributed import processes
from jaxorg.engine.run.answers import speaker
from jaxorg.engine.run.inputs import Inputs
from jaxorg.errors import Refusal
from jaxorg.llama.tokenizer_settings import ChatFormat
from jaxorg.planning.phases import Teacher
from jaxorg.planning.signature import ModelSignature, unrolls
from jaxorg.scorers.endpoint import Ask
from jaxorg.scorers.judge import Judge
from jaxorg.storage.store import Store


def check(judges: Iterable[Judge], inputs: Inputs) -> None:
    """See that judges can be asked, as far as that shows before.

    Args:
        judges: those of a plan.
        inputs: for their weights and tokenizers.

    Raises:
        Refusal: the files of a model are broken, or several processes would ask it.
    """
    for judge in judges:
        if judge.endpoint is not None:
            continue
        if processes.count() > 1:
            raise Refusal(
                "prompts.scorer: several processes ask no judge of their own; give it an endpoint"
            )
        inputs.base(judge.model)
        inputs.tokenizer(judge.model, ChatFormat())


def asks(
    inputs: Inputs, store: Store, mesh: Mesh, stopping: Callable[[], int | None]
) -> Callable[[Judge], Ask]:
    """What asks judges, whose weights then stay on the devices.

    Args:
        inputs: for their weights and tokenizers.
        store: where their replies are kept.
        mesh: devices to place them on.
        stopping: asks to stop, with an exit code.

    Returns:
        What takes a judge and gives what asks it.

    Raises:
        Refusal: not here, but by what is returned: a question and a reply are more than a model can
            see.
    """

    @cache
    def of(judge: Judge) -> Ask:
        shape = inputs.shape(judge.model)
        model = ModelSignature(shape, shared_frozen=True, unroll=unrolls(shape))
        who = (judge.replies_key, "prompts.scorer.model", judge.model)
        teacher = Teacher(*who, model, ChatFormat(), judge.new_tokens)
        answers = speaker(teacher, inputs, store, mesh, stopping)

        def ask(questions: Sequence[str]) -> list[str]:
            inputs.check_room(teacher, questions, "prompts.scorer.new_tokens")
            said = answers(questions)
            return [said[question] for question in questions]

        return ask

    return of
