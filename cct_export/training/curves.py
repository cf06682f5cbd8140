"""Loss and accuracy over the epochs, as a picture."""

from pathlib import Path

from cct_export.files import replacing
from cct_export.training.run import History


def plot(history: History, path: Path) -> None:
    """Writes the learning curves of ``history`` to ``path`` (PNG)."""
    # Figure instead of pyplot: no global state, no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = [entry["epoch"] for entry in history]
    for axes, key, title in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("Loss", "Top-1 accuracy"), strict=True
    ):
        axes.plot(epochs, [entry[key] for entry in history], label="training", color="#4477aa")
        axes.plot(
            epochs, [entry[f"val_{key}"] for entry in history], label="validation", color="#cc6677"
        )
        axes.set(xlabel="epoch", title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
