"""`lerobot-gem-train-autoencoder`: stage 0 of the `tiny` preset, an autoencoder of depth pictures."""

from lerobot.utils.utils import init_logging

from lerobot_gem.scripts.options import parse_options
from lerobot_gem.training.autoencoder import AutoencoderTrainingConfig, train_autoencoder


def main() -> None:
    init_logging()
    config = parse_options(AutoencoderTrainingConfig)
    report = train_autoencoder(config)
    print(
        f"{config.output_dir}: {report.pictures} held-out pictures, PSNR {report.psnr_before:.1f} dB with random weights, "
        f"{report.psnr_after:.1f} dB now; scaling factor {report.scaling_factor:.4f}"
    )


if __name__ == "__main__":
    main()
