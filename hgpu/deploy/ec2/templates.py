"""Launch templates: made once, under a name that holds their digest; deleted when nothing runs from them."""

from collections.abc import Sequence
from typing import Any

from hgpu.core.errors import InputError
from hgpu.deploy.ec2.clients import Clients, code_of, told
from hgpu.deploy.ec2.state import Ec2State, TemplateState
from hgpu.deploy.ec2.tags import DEPLOYMENT, of_deployment
from hgpu.deploy.ec2.wanted import WantedPool
from hgpu.deploy.ec2.world import Template, templates_of


def made(pool: WantedPool, deployment: str, clients: Clients) -> Template:
    """Create a pool's launch template, or return the one that an interrupted apply created.

    Raises InputError where another deployment, or somebody by hand, has taken the name.
    """
    from botocore.exceptions import ClientError

    client, region = clients(pool.row.region), pool.row.region
    with told():
        try:
            row = client.create_launch_template(**pool.body)["LaunchTemplate"]
            return Template(row["LaunchTemplateId"], row["LaunchTemplateName"], region, {})
        except ClientError as error:
            if code_of(error) != "InvalidLaunchTemplateName.AlreadyExistsException":
                raise
        for found in templates_of(client, region, LaunchTemplateNames=[pool.template]):
            if found.tags.get(DEPLOYMENT) == deployment:
                return found
    raise InputError(
        f"the launch template '{pool.template}' isn't hgpu's",
        "it has that name without the deployment's tag",
        "delete it, or deploy under another --name",
    )


def deleted(templates: Sequence[Template], clients: Clients) -> None:
    """Delete launch templates; one that is gone already is no error."""
    from botocore.exceptions import ClientError

    with told():
        for template in templates:
            try:
                clients(template.region).delete_launch_template(LaunchTemplateId=template.id)
            except ClientError as error:
                if not code_of(error).startswith("InvalidLaunchTemplateId.NotFound"):
                    raise


def existing(state: Ec2State, region: str, client: Any) -> list[Template]:
    """Return a deployment's templates in a region: by tag, and by the names that the state intended."""
    with told():
        tagged = templates_of(client, region, Filters=of_deployment(state.name))
        seen = {found.name for found in tagged}
        unseen = [row.name for row in state.templates if row.region == region and row.name not in seen]
        by_name = [t for name in unseen for t in templates_of(client, region, LaunchTemplateNames=[name])]
    return [*tagged, *(found for found in by_name if found.tags.get(DEPLOYMENT) == state.name)]


def with_template(state: Ec2State, template: Template) -> Ec2State:
    """Return the state with a template's id."""
    rows = [
        row.model_copy(update={"id": template.id}) if _same(row, template) else row for row in state.templates
    ]
    return state.model_copy(update={"templates": rows})


def _same(row: TemplateState, template: Template) -> bool:
    return (row.name, row.region) == (template.name, template.region)
