"""The number of tokens of a call: by Mistral's own tokenizers (extra `[tokens]`), or estimated without them. Pure, but
for the tokenizers' files, which are a part of their package.

`mistral-embed` has the tokenizer v1, with a mark at the beginning and the end of each text. Chat models have Tekken, in
the template v3: `<s>[INST]user[/INST]assistant</s>…`, the system message within the last `[INST]` block. Later models
set the system message elsewhere, which changes a few tokens of a request. How texts of classification endpoints are
counted is not documented: they are estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Literal, Protocol

from labelmill.core.money.token_counts import count_tokens

_REPEATED = 20_000  #: Messages whose tokens are kept: a prompt's instructions and examples go with every text.
_ROLE_TOKENS = 4  #: About what a template adds to a message.

Message = Mapping[str, Any]
TokensBy = Literal["tokenizer", "estimate"]


class TokenCounter(Protocol):
    """Counts tokens. `tokens_by`: how far the numbers can be trusted."""

    tokens_by: TokensBy

    def of_text(self, text: str) -> int:
        """Of one text of an embedding call."""
        ...

    def of_chat(self, messages: Sequence[Message]) -> int:
        """Of the messages of a chat call, the last of which is the user's."""
        ...

    def of_answer(self, answer: str) -> int:
        """Of what a chat model writes."""
        ...


class EstimatedTokens:
    """A token for every three bytes, which is more than nearly all texts have."""

    tokens_by: TokensBy = "estimate"

    def of_text(self, text: str) -> int:
        return count_tokens(text)

    def of_chat(self, messages: Sequence[Message]) -> int:
        return sum(count_tokens(message["content"]) + _ROLE_TOKENS for message in messages)

    def of_answer(self, answer: str) -> int:
        return count_tokens(answer)


class MistralTokens:
    """By Mistral's tokenizers. Loading them takes some seconds, so each is loaded when it is needed first."""

    tokens_by: TokensBy = "tokenizer"

    def __init__(self) -> None:
        """Raises ImportError without the extra `[tokens]`."""
        from mistral_common.tokens.tokenizers.mistral import MistralTokenizer  # noqa: PLC0415 - an extra, and slow

        self._load = MistralTokenizer
        self._of_repeated = lru_cache(_REPEATED)(self.of_answer)

    def of_text(self, text: str) -> int:
        return len(self._v1.encode(text, bos=True, eos=True))

    def of_chat(self, messages: Sequence[Message]) -> int:
        system = "".join(f"{message['content']}\n\n" for message in messages if message["role"] == "system")
        turns = [message for message in messages if message["role"] != "system"]
        tokens = 1 + (self._of_repeated(system) if system else 0)
        for message in turns[:-1]:  # a mark behind an answer, one before and one behind a question
            tokens += self._of_repeated(message["content"]) + (1 if message["role"] == "assistant" else 2)
        return tokens + self.of_answer(turns[-1]["content"]) + 2

    def of_answer(self, answer: str) -> int:
        return len(self._tekken.encode(answer, bos=False, eos=False))

    @cached_property
    def _v1(self) -> Any:
        return self._load.v1().instruct_tokenizer.tokenizer

    @cached_property
    def _tekken(self) -> Any:
        return self._load.v3(is_tekken=True).instruct_tokenizer.tokenizer


def token_counter() -> TokenCounter:
    """By the tokenizers where they are installed, else by estimate."""
    try:
        return MistralTokens()
    except ImportError:
        return EstimatedTokens()
