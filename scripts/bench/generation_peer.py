#!/usr/bin/env python3
"""The peer of the generation benchmark: openai's client under asyncio, every answer a line of JSON.

    pip install openai
    python scripts/bench/generation_peer.py URL REQUESTS CONCURRENCY OUT.jsonl
"""

import asyncio
import json
import sys

import openai


async def main():
    url, requests, concurrency, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=2)
    room = asyncio.Semaphore(concurrency)
    with open(out, "w", encoding="utf-8") as file:

        async def ask(i):
            async with room:
                answer = await client.completions.create(
                    model="served", prompt=list(range(40)), max_tokens=2000, temperature=0.6, top_p=0.95, seed=i,
                    logprobs=20, extra_body={"return_token_ids": True, "return_tokens_as_token_ids": True},
                )
                choice = answer.choices[0]
                file.write(json.dumps({
                    "sample": i, "text": choice.text, "finish_reason": choice.finish_reason,
                    "token_ids": choice.model_extra["token_ids"], "token_logprobs": choice.logprobs.token_logprobs,
                    "top_logprobs": choice.logprobs.top_logprobs,
                }) + "\n")

        await asyncio.gather(*(ask(i) for i in range(requests)))


asyncio.run(main())
