"""A compiled script, which runs as often as one likes."""

from __future__ import annotations

from typing import Final

from twisted_mail.sieve.compiler import script_of
from twisted_mail.sieve.lexer import Source
from twisted_mail.sieve.message import Message
from twisted_mail.sieve.registry import Step
from twisted_mail.sieve.running import Returned, Run, Stopped
from twisted_mail.sieve.scope import Compilation
from twisted_mail.sieve.values import CompileLimits, Include, Keep, Outcome, RunEnvironment, RunLimits, SieveError
from twisted_mail.sieve.vocabulary import VOCABULARY

__all__ = ["Script", "compile_script"]

_COMPILE_LIMITS: Final = CompileLimits()
_RUN_LIMITS: Final = RunLimits()


class Script:
    """Made by `compile_script`. It holds nothing of any message, and can be run by several at once."""

    __slots__ = ("_capabilities", "_fields", "_rewrites", "_step", "needs_body")

    def __init__(self, step: Step, capabilities: frozenset[str], needs_body: bool, fields: frozenset[str]):
        self._step = step
        self._capabilities = capabilities
        self._fields = fields
        self._rewrites = "replace" in capabilities or "enclose" in capabilities
        self.needs_body = needs_body
        """Whether any of its tests or actions looks at more than the header and the size of a message."""

    def uses(self, capability: str) -> bool:
        """Whether it, or a script that it includes, required *capability*."""
        return capability in self._capabilities

    def run(self, message: Message, environment: RunEnvironment, limits: RunLimits = _RUN_LIMITS) -> Outcome:
        """What the script makes of *message*. Raises nothing: what fails is in `Outcome.error`, and the message is kept
        as if there were no script (RFC 5228 section 2.10.6).
        """
        message.header.expect(self._fields)
        if self._rewrites:
            message = message.apart()
        run = Run(message, environment, limits)
        try:
            try:
                self._step(run)
            except (Stopped, Returned):
                pass
            run.spend(0)
            if run.implicit_keep and not any(type(action) is Keep for action in run.actions):
                run.keep_at_the_end()
                run.note("implicit keep")
        except SieveError as error:
            run.note(f"failed: {error}")
            return Outcome(actions=(Keep(),), trace=tuple(run.trace), error=error)
        return Outcome(
            actions=tuple(run.actions),
            edits=tuple(run.edits),
            rewritten=run.rewritten,
            tracked=run.tracked,
            trace=tuple(run.trace),
        )


def compile_script(
    text: str, *, include: Include | None = None, limits: CompileLimits = _COMPILE_LIMITS, explain: bool = False
) -> Script:
    """Compiles a script with all that it includes; without *include* there is nothing that it could include. With *explain*
    the trace of a run also says which tests were false.

    Raises: SieveError with line and column, from 1.
    """
    compilation = Compilation(VOCABULARY, include, limits, explain)
    step = script_of(Source(text), compilation)
    return Script(step, frozenset(compilation.capabilities), compilation.needs_body, frozenset(compilation.fields))
