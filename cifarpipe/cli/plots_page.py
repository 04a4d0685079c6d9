"""The page into which `dvc plots` puts its figures, with its scripts in it: `make setup` writes it.

DVC's own page fetches them from the network, and stays empty without one.
"""

from pathlib import Path

from cifarpipe.store.outputs import write_text

PAGE = Path(".dvc/plots_page.html")  # named in .dvc/config
VEGA_LITE = "5.20"  # DVC's templates are of version 5
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh_tag}
<title>Plots of the pipeline</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; padding: 1rem; background: #fff;
  color: #1b2430; display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
body > div { max-width: 100%; overflow-x: auto; }
img { max-width: 100%; height: auto; }
p { margin: 0 0 .25rem; overflow-wrap: anywhere; }
table { border-spacing: 0; }
</style>
<script>"""
REST = """</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def main() -> None:
    """Write the page."""
    import vl_convert

    scripts = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]
    # Within a page, that would end the script.
    write_text(PAGE, HEAD + scripts.replace("</script", "<\\/script") + REST)


if __name__ == "__main__":
    main()
