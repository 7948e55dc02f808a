"""What a recipe costs and what the paper reports of it, in lines for a person.

Nodes and hours are computed, not measured: of the layout of section 4.5 (R = M, 64 instances a
node) on nodes with one P100. A step of 64 instances takes as long as table 5 says of ResNet-50,

    seconds of a step = 64 / 234.4 · (multiply-adds of the network / those of ResNet-50)

and E epochs are E·(N // B) steps. Neither input nor messages are in it, and small networks reach a
smaller share of a processor's speed than ResNet-50: it is a lower bound.
"""

from ba_dist.config import Config
from ba_dist.recipes.published import Published, published

NODE_BATCH = 64
NODE_IMAGES_PER_SECOND = 234.4  # table 5, ResNet-50 at 64 images
# Billions of multiply-adds of convolutions and linear layers for one image of the paper's size.
MULTIPLY_ADDS = {
    "resnet44": 0.097,
    "vgg16": 0.332,
    "wrn28-10": 5.243,
    "densenet100-12": 0.288,
    "darts": 0.529,  # with the auxiliary head
    "amoebanet": 5.731,
    "alexnet": 0.714,
    "mobilenet": 0.569,
    "resnet50": 4.089,
    # Not the paper's, but planned as well.
    "resnet8": 0.009,
    "resnet20": 0.041,
    "resnet18": 1.814,
    "resnet101": 7.801,
}
SAMPLES = {"cifar10": 50_000, "cifar100": 50_000, "imagenet": 1_281_167}


def nodes(config: Config) -> int:
    """M nodes a group, and a group for each 64 samples of a step."""
    return max(1, config.batch.batch_size // NODE_BATCH) * config.batch.multiplicity


def hours(config: Config) -> float | None:
    """Of computing on that many nodes; None where the network or the dataset is none of images that
    the paper has.
    """
    work = MULTIPLY_ADDS.get(config.model.model)
    samples = SAMPLES.get(config.data.dataset)
    if work is None or samples is None:
        return None
    share = min(NODE_BATCH, config.batch.batch_size)
    seconds = share / NODE_IMAGES_PER_SECOND * work / MULTIPLY_ADDS["resnet50"]
    return config.run.epochs * (samples // config.batch.batch_size) * seconds / 3600


def about(name: str, config: Config) -> list[str]:
    """The command of a recipe, what the paper reports, and what it costs at least."""
    lines = [f"launch/mpirun.sh -n {nodes(config)} -- train {name}"]
    lines += [_reported(row) for row in published(name)]
    if (cost := hours(config)) is not None:
        lines.append(
            f"computed: at least {cost:.2g} hours on {nodes(config)} nodes with a P100 each, from"
            " table 5 and multiply-adds, without input and messages"
        )
    return lines


def _reported(row: Published) -> str:
    numbers = {"fixed-steps": row.baseline, "fixed-samples": row.fixed_samples}
    numbers["batch augmentation"] = row.augmented
    shown = [f"{name} {number:.2f}" for name, number in numbers.items() if number is not None]
    if row.baseline_epochs:
        shown[0] += f" ({row.baseline_epochs} epochs)"
    of_ten = "; of ten augmented copies (ba-dist eval RUN --tta 10)"
    ten = f"{of_ten} {row.tta[0]:.2f}, {row.tta[1]:.2f}" if row.tta else ""
    return f"the paper, {row.where}, {row.measure}: {', '.join(shown)}{ten}"
