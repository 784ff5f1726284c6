"""A chart of a run that a notebook shows without the network."""

from __future__ import annotations

from typing import Any

import altair

from embedcore.report.html.drawing import svg


class RunChart(altair.LayerChart):
    """An Altair chart that is shown as SVG, since Altair's default renderer loads scripts from a CDN.

    If another renderer is enabled, as by ``altair.renderers.enable("html")``, that one shows it.
    """

    def _repr_mimebundle_(self, *args: Any, **options: Any) -> Any:
        if altair.renderers.active != "default":
            return super()._repr_mimebundle_(*args, **options)
        return {"image/svg+xml": svg(self.to_dict()).decode()}
