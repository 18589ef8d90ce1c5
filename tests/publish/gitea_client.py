"""Checks the double of Gitea from outside: a client that was generated from Gitea's own specification does everything that pnb does, and
its models, which refuse values of other types, read every answer. Arguments: the address of the API, a token, a commit."""

import asyncio
import sys

import gitea_api_client as gitea


async def refused(status, call):
    """The call must end with this status."""
    try:
        await call
    except gitea.ApiException as error:
        assert error.status == status, f"{error.status} instead of {status}"
    else:
        raise AssertionError(f"no {status}")


async def main(base, token, commit):
    settings = gitea.Configuration(host=base, api_key={"AuthorizationHeaderToken": token})
    settings.api_key_prefix["AuthorizationHeaderToken"] = "token"
    async with gitea.ApiClient(settings) as client, gitea.ApiClient(gitea.Configuration(host=base)) as stranger:
        at = ("powernode", "images")
        api, public = gitea.RepositoryApi(client), gitea.RepositoryApi(stranger)
        version = await gitea.MiscellaneousApi(client).get_version()
        assert version.version == "1.27.3", version
        limits = await gitea.SettingsApi(client).get_general_attachment_settings()
        assert limits.enabled and limits.max_size == 2048, limits
        assert (await gitea.UserApi(client).user_get_current()).login == "publisher"
        repository = await api.repo_get(*at)
        assert repository.permissions.push and not repository.empty, repository
        assert (await api.repo_get_single_commit(*at, commit)).sha == commit
        patterns = [rule.name_pattern for rule in await api.repo_list_tag_protection(*at)]
        assert patterns == ["release-*"], patterns

        wanted = gitea.CreateReleaseOption(
            tag_name="v1", target_commitish=commit, name="one", body="text", draft=True
        )
        release = await api.repo_create_release(*at, body=wanted)
        assert release.draft and release.tag_name == "v1" and release.assets == [], release
        await refused(409, api.repo_create_release(*at, body=wanted))
        # A draft makes no tag, and strangers do not see it.
        await refused(404, api.repo_get_tag(*at, "v1"))
        await refused(404, public.repo_get_release_by_tag(*at, "v1"))
        assert (await api.repo_get_release_by_tag(*at, "V1")).id == release.id
        assert [found.id for found in await api.repo_list_releases(*at, draft=True, page=1, limit=50)] == [release.id]

        # One name can have two assets.
        first = await api.repo_create_release_attachment(*at, release.id, name="kernel", attachment=("x", b"12345"))
        second = await api.repo_create_release_attachment(*at, release.id, name="kernel", attachment=("x", b"123"))
        assert (first.name, first.size, second.name, second.size) == ("kernel", 5, "kernel", 3)
        assert first.id != second.id and first.uuid != second.uuid
        listed = await api.repo_list_release_attachments(*at, release.id)
        assert [asset.id for asset in listed] == [first.id, second.id], listed
        renamed = await api.repo_edit_release_attachment(
            *at, release.id, second.id, body=gitea.EditAttachmentOptions(name="other")
        )
        assert renamed.name == "other", renamed
        await api.repo_delete_release_attachment(*at, release.id, second.id)
        assert (await api.repo_get_release_attachment(*at, release.id, first.id)).size == 5
        await refused(404, api.repo_get_release_attachment(*at, release.id, second.id))

        shown = await api.repo_edit_release(*at, release.id, body=gitea.EditReleaseOption(draft=False))
        assert not shown.draft and [asset.name for asset in shown.assets] == ["kernel"], shown
        assert (await api.repo_get_tag(*at, "v1")).commit.sha == commit
        assert (await public.repo_get_release_by_tag(*at, "v1")).id == release.id
        await refused(401, public.repo_delete_release(*at, release.id))
        wanted.tag_name = "release-1"
        protected = await api.repo_create_release(*at, body=wanted)
        await refused(500, api.repo_edit_release(*at, protected.id, body=gitea.EditReleaseOption(draft=False)))
        await api.repo_delete_release(*at, protected.id)
        wanted.tag_name, wanted.target_commitish = "v2", "nothing"
        await refused(404, api.repo_create_release(*at, body=wanted))
    print("every answer was read")


asyncio.run(main(*sys.argv[1:]))
