"""The rows of the paper's Table 2, from classifier retraining to CC-SAM, and CC-SAM as it was released."""

from __future__ import annotations

from .parts import CRT, CRT_SETTINGS, PLAIN
from .record import Method, Published, Setting, by_benchmark, figures

RELEASE = "zzpustc/CC-SAM configs/Cifar10.json, Cifar100.json"
CCSAM_FORMULA = "mean_i l_i(w + ε_{y_i}), ε_c = √k ρ_c g_c/‖g_c‖, ρ_c = (‖w‖/2‖g_c‖)^½ k^-¼ (n_c − 1)^-¼ (Eq. 8, 9)"
STAGE2_FORMULA = "(1 − t/T) l(z) + (t/T) l(z + λ ∇_z l/‖∇_z l‖) on class-balanced batches (Eq. 12, 14)"
RADIUS_NOTE = "The printed radius has no usable scale: ε is scaled to a mean relative radius, see relative_radius."
STAGE1_SETTINGS = (
    Setting(
        "stage1.relative_radius",
        0.002,
        f"the paper prints no scale; {RELEASE}: noise_ratio 1e-6 times Eq. 9, which moves nothing",
        chosen=True,
    ),
    Setting("stage1.max_perturbation_ratio", 0.1, "a guard for fitted classes, in no source", chosen=True),
    Setting(
        "stage1.flat_weight",
        1.0,
        f"Eq. 11, the perturbed loss alone; {RELEASE}: flat_ratio 0.3 (CIFAR-10), 0.5 (CIFAR-100)",
    ),
    Setting(
        "stage1.mixup_alpha",
        0.0,
        f"the paper's equations have no mixup; {RELEASE}: mixup true, mixup_alpha 1",
        chosen=True,
    ),
)
STAGE2_SETTINGS = (
    Setting(
        "stage2.relative_adversarial_scale",
        0.1,
        f"the paper prints no λ; {RELEASE}: adver_reg 1 in feature units, times a class weight, up_limit 1 (CIFAR-10), "
        "0.3 (CIFAR-100): rule adversarial_released",
        chosen=True,
    ),
)

CRT_ROW = Method(
    "crt",
    "cRT",
    "Kang et al., ICLR 2020; Table 2's base",
    "CE; then a fresh classifier on class-balanced batches over the frozen backbone",
    PLAIN,
    CRT,
    settings=CRT_SETTINGS,
)
CRT_DIR = Method(
    "crt_dir",
    "cRT + dir",
    "Table 2",
    "stage 1 along each class's own gradient, one length for all classes; then cRT",
    {"perturbation": "ccsam_direction"},
    CRT,
    settings=(*STAGE1_SETTINGS, *CRT_SETTINGS),
    note=f"Length: the batch's mean. {RADIUS_NOTE}",
)
CRT_MAG = Method(
    "crt_mag",
    "cRT + mag",
    "Table 2",
    "stage 1 with Eq. 8's length for each class, in a random direction; then cRT",
    {"perturbation": "ccsam_magnitude"},
    CRT,
    settings=(*STAGE1_SETTINGS, *CRT_SETTINGS),
    note=f"Direction: Gaussian. {RADIUS_NOTE}",
)
CRT_DIR_MAG = Method(
    "crt_dir_mag",
    "cRT + dir + mag",
    "Table 2",
    f"{CCSAM_FORMULA}; then cRT",
    {"perturbation": "ccsam"},
    CRT,
    settings=(*STAGE1_SETTINGS, *CRT_SETTINGS),
    note=RADIUS_NOTE,
)
CCSAM = Method(
    "ccsam",
    "CC-SAM",
    "Zhou et al., CVPR 2023; Table 2's cRT + dir + mag + stage 2",
    f"{CCSAM_FORMULA}; then {STAGE2_FORMULA}",
    {"perturbation": "ccsam"},
    {"rule": "adversarial"},
    settings=(*STAGE1_SETTINGS, *STAGE2_SETTINGS),
    paper=figures((80.94, 83.92, 86.22), (45.66, 50.83, 53.91)),
    note=f"{RADIUS_NOTE} The authors advise --augmentation autoaugment_cutout.",
)
CCSAM_RELEASED = Method(
    "ccsam_released",
    "CC-SAM as released",
    "Zhou et al., CVPR 2023, the authors' program",
    "(1 − a) l(w) + a l(w + s ε_{y_i}) with s = 1e-6 and mixup; then stage 2 with class weights and a cap on t/T",
    {"perturbation": "ccsam", "radius_scale": 1e-6, "flat_weight": 0.5, "mixup_alpha": 1.0},
    {"rule": "adversarial_released", "adversarial_scale": 1.0, "adversarial_cap": 0.3},
    settings=(
        Setting("stage1.radius_scale", 1e-6, f"{RELEASE}: noise_ratio 1e-6 times Eq. 9, which moves nothing"),
        Setting("stage1.flat_weight", 0.5, f"{RELEASE}: flat_ratio"),
        Setting("stage1.mixup_alpha", 1.0, f"{RELEASE}: mixup true, mixup_alpha 1"),
        Setting("stage2.adversarial_scale", 1.0, f"{RELEASE}: adver_reg 1 in feature units"),
        Setting("stage2.adversarial_cap", 0.3, f"{RELEASE}: up_limit"),
    ),
    published=by_benchmark(
        {
            ("cifar10-lt", 100): Published(
                "zzpustc/CC-SAM configs/Cifar10.json", {"flat_weight": 0.3}, {"adversarial_cap": 1.0}
            )
        }
    ),
    note="Published with another network, and with checkpoints chosen on the test set; here ResNet-32, last epoch.",
)
