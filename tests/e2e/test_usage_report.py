"""Usage as an operator sees it, from real requests."""

import csv
import io

from qwen_proxy.admin.usage import UsageBody
from tests.support.admin import answer, as_admin
from tests.support.asking import streamed, whole
from tests.support.running import running


async def test_requests_show_up_by_key_account_and_model() -> None:
    async with running() as gateway, as_admin(gateway) as admin:
        good = await whole(gateway)
        assert good.usage is not None
        await streamed(gateway)
        bad = await whole(gateway, "[[sim error invalid_input]]")
        assert bad.status == 400
        await whole(gateway, model="no-such-model")
        await gateway.commons.usage.flush()
        found = await answer(admin, "GET", "/api/admin/usage?by=key,account,model", UsageBody)
        (line,) = found.lines
        assert (line.key_name, line.account, line.model) == ("key-2", "a@example.com", "qwen3.7-plus")
        assert (line.requests, line.failures) == (3, 1)
        assert line.prompt_tokens >= 2 * good.usage.prompt_tokens
        assert line.total_tokens == line.prompt_tokens + line.completion_tokens
        hours = await answer(admin, "GET", "/api/admin/usage?per=hour&by=time,feature&feature=chat", UsageBody)
        assert sum(each.requests for each in hours.lines) == 3
        none = await answer(admin, "GET", "/api/admin/usage?model=another", UsageBody)
        assert none.lines == ()
        async with admin.get("/api/admin/usage.csv?by=key,model") as response:
            assert response.content_type == "text/csv"
            rows = list(csv.DictReader(io.StringIO(await response.text())))
        assert [(row["key_name"], row["model"], row["requests"]) for row in rows] == [("key-2", "qwen3.7-plus", "3")]


async def test_a_wrong_question_names_its_field() -> None:
    async with running() as gateway, as_admin(gateway) as admin:
        for query, named in (("by=time,colour", "by"), ("since=5&until=4", "since"), ("per=week", "per")):
            async with admin.get(f"/api/admin/usage?{query}") as response:
                assert response.status == 400
                assert f'"param":"{named}"' in await response.text()
