"""Write the page of `dvc plots` with its scripts inside, so that it works without a network.

DVC's own page loads them from a content delivery network. The page in the repository has none, and
says how to write this one: they are other people's code, and large.
"""

from pathlib import Path

from cifarpipe.cli.dvc_command import run_dvc
from cifarpipe.config.errors import UserError
from cifarpipe.store.outputs import write_text

SMALL_PAGE = Path(".dvc/plots_page.html")  # in the repository, named in .dvc/config
PAGE = Path(".dvc/plots_page_offline.html")  # named in .dvc/config.local; not in git
VEGA_LITE = "5.20"  # DVC's templates are written for version 5
NOTICE = ("<!-- notice -->", "<!-- end of notice -->")


def write_plots_page() -> None:
    """Write the page, and make DVC use it in this clone.

    Raises:
        UserError: This is not the root of a clone, or DVC can't be configured.
    """
    import vl_convert

    if not SMALL_PAGE.is_file():
        raise UserError(f"{SMALL_PAGE} does not exist. Run from the project's root folder.")
    page = SMALL_PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(NOTICE[0])
    _, _, after = rest.partition(NOTICE[1])
    scripts = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]
    # Within a page, "</script" would end the script.
    scripts = scripts.replace("</script", "<\\/script")
    write_text(PAGE, f"{before.replace('</head>', f'<script>{scripts}</script></head>')}{after}")
    done = run_dvc("config", "--local", "plots.html_template", PAGE.name)
    if done.returncode:
        raise UserError(f"DVC can't be configured: {done.stderr.strip()}")
