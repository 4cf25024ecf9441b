"""One upstream call without the way of a call around it: for claims about pools, connections and what is retried."""

from __future__ import annotations

from http import HTTPStatus

from config.pools import Pool
from proxy.upstream.client import Post
from proxy.upstream.pools import Upstreams
from proxy.upstream.response import Response
from proxy.upstream.targets import Attempt

MODEL = "deepseek-v3"


async def answered(upstreams: Upstreams, post: Post, attempts: list[Attempt], model: str = MODEL) -> Response:
    """The response to one POST, written the same for every pool but for its key."""

    async def rewrite(pool: Pool) -> Post:
        return post._replace(key=upstreams.key_of(pool) or post.key)

    lease = upstreams.lease(model)
    try:
        response = await upstreams.post(lease, await rewrite(lease.pool), rewrite, attempts)
        if response.status == HTTPStatus.OK:
            lease.answered()
        return response
    finally:
        lease.release()
