"""Table 2's rows from classifier retraining to CC-SAM, CC-SAM as released, every row by name, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import compared
from .compared import CRT, CRT_SETTINGS, PLAIN
from .printed import printed
from .record import Method, Published, Setting, by_benchmark

RELEASE = "zzpustc/CC-SAM configs/Cifar10.json, Cifar100.json"
CCSAM_FORMULA = "mean_i l_i(w + ε_{y_i}), ε_c = √k ρ_c g_c/‖g_c‖, ρ_c = (‖w‖/2‖g_c‖)^½ k^-¼ (n_c − 1)^-¼ (Eq. 8, 9)"
STAGE2_FORMULA = "(1 − t/T) l(z) + (t/T) l(z + λ ∇_z l/‖∇_z l‖) on class-balanced batches (Eq. 12, 14)"
IMBALANCED_SAM = "cool-xuan/Imbalanced_SAM"
FOCAL = "scongl/Focal-SAM train_step.py, focal_sam.py and its scripts"
NOT_REPRODUCED = (
    "What the release does and this row does not: one norm for each tensor in Eq. 9; samples grouped by their own "
    "label under mixup, and the mixed target undone; warm-up from lr/3; its own draw of the long tail; shot groups "
    "with inclusive thresholds; BatchNorm statistics that move in stage 2 (--stage2.shift_batch_norm true does that); "
    "another network; and the checkpoint chosen on the test set, where this row takes the last epoch."
)
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
    paper=printed("cRT"),
)
CRT_DIR = Method(
    "crt_dir",
    "cRT + dir",
    "Table 2",
    "stage 1 along each class's own gradient, one length for all classes; then cRT",
    {"perturbation": "ccsam_direction"},
    CRT,
    settings=(*STAGE1_SETTINGS, *CRT_SETTINGS),
    paper=printed("cRT + dir"),
    note=f"Length: the batch's mean; crt_dir_printed has the printed length. {RADIUS_NOTE}",
)
CRT_DIR_PRINTED = Method(
    "crt_dir_printed",
    "cRT + dir, magnitude 1",
    "Table 2",
    "stage 1 at w + g_c/‖g_c‖ for each class, whatever ‖w‖ is; then cRT",
    {"perturbation": "ccsam_direction", "perturbation_length": "unit"},
    CRT,
    settings=(*STAGE1_SETTINGS[2:], *CRT_SETTINGS),
    paper=printed("cRT + dir"),
    note="Table 2's caption prints a magnitude of 1. It has no cap, and is large beside a small network's weights.",
)
CRT_MAG = Method(
    "crt_mag",
    "cRT + mag",
    "Table 2",
    "stage 1 with Eq. 8's length for each class, in a random direction; then cRT",
    {"perturbation": "ccsam_magnitude"},
    CRT,
    settings=(*STAGE1_SETTINGS, *CRT_SETTINGS),
    paper=printed("cRT + mag"),
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
    paper=printed("cRT + dir + mag"),
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
    paper=printed("CC-SAM"),
    note=f"{RADIUS_NOTE} The authors advise --augmentation autoaugment_cutout. Eq. 8's gradient factor gave rare "
    "classes the smaller radius on every fitted network measured so far; --perturbation ccsam_count goes by the "
    "counts alone.",
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
            ("cifar10-lt", 200): Published(
                "zzpustc/CC-SAM configs/Cifar10.json", {"flat_weight": 0.3}, {"adversarial_cap": 1.0}
            )
        }
    ),
    note=f"Both configurations of the release are of imbalance ratio 200. {NOT_REPRODUCED}",
)
IMBSAM = Method(
    "imbsam",
    "ImbSAM as released",
    "Y. Zhou et al., ICCV 2023",
    "Σ_head l_i(w)/B + 2 Σ_tail l_i(w + ρ g_tail/‖g_tail‖)/B, all weights, tail: n_c ≤ head_threshold",
    {"perturbation": "imbsam", "radius": 0.05, "head_threshold": 19, "tail_weight": 2.0},
    settings=(
        Setting("stage1.radius", 0.05, f"{IMBALANCED_SAM}: rho 0.05"),
        Setting("stage1.head_threshold", 19, f"{IMBALANCED_SAM}: --eta 20, tail classes have n_c < 20"),
        Setting("stage1.tail_weight", 2.0, f"{IMBALANCED_SAM}: the tail's loss is doubled in both passes"),
    ),
    note="Threshold 19 and tail weight 2. With tail weight 1 (perturbation='imbsam' by itself) a sample of the tail "
    "counts as one of the head; the copy in SSE-SAM's repository averages head and tail apart. Three programs bear "
    "this name, so a figure needs its threshold and tail weight. The release's network is of ResNet-34's kind, not "
    "ResNet-32.",
)
FOCAL_SAM = Method(
    "focal_sam",
    "Focal-SAM + logit adjustment",
    "Li et al., ICML 2025",
    "L(w) + λ (L^γ(w + ε) − L^γ(w)), L^γ = mean_i (1 − π_{y_i})^γ l_i, ε = ρ ∇L^γ/‖∇L^γ‖, all weights",
    {
        "perturbation": "focal_sam",
        "radius": 0.3,
        "focal_gamma": 3.2,
        "sharpness_weight": 0.8,
        "loss": "logit_adjustment",
    },
    settings=(
        Setting("stage1.radius", 0.3, f"{FOCAL}, CIFAR-100"),
        Setting("stage1.focal_gamma", 3.2, f"{FOCAL}, CIFAR-100"),
        Setting("stage1.sharpness_weight", 0.8, f"{FOCAL}, CIFAR-100"),
    ),
    published=by_benchmark(
        {
            (name, None): Published(
                f"{FOCAL}, {title}", {"radius": radius, "focal_gamma": gamma, "sharpness_weight": weight}
            )
            for name, title, radius, gamma, weight in (
                ("cifar10-lt", "CIFAR-10, IR 100", 0.2, 3.0, 0.5),
                ("imagenet-lt", "ImageNet-LT", 0.05, 0.8, 0.8),
                ("inat2018", "iNaturalist 2018", 0.2, 2.0, 1.1),
            )
        }
    ),
    note="ρ is constant here; on ImageNet-LT it was stepped from 0.05 to 0.1 and 0.2. λ above 1 gives the rarest "
    "classes a negative weight in the flat part, as released.",
)

ROWS = (
    compared.CE,
    compared.CE_MIXUP,
    compared.FOCAL_ROW,
    compared.LDAM_DRW_ROW,
    compared.LDAM_DRW_SAM,
    compared.VS_SAM,
    compared.CE_MIXUP_CRT,
    compared.DECONFOUND_TDE,
    compared.MISLAS_ROW,
    compared.GCL_ROW,
    compared.TAU_NORM,
    compared.BALANCED_SOFTMAX,
    compared.LADE_ROW,
    compared.DISALIGN,
    compared.RESLT_ROW,
    IMBSAM,
    FOCAL_SAM,
    CRT_ROW,
    CRT_DIR,
    CRT_DIR_PRINTED,
    CRT_MAG,
    CRT_DIR_MAG,
    CCSAM,
    CCSAM_RELEASED,
)
METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in ROWS})
# Rows of the tables that are not offered, by their printed title, with the reason.
LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "BBN": "not here yet. B. Zhou et al., CVPR 2020: two branches with images drawn uniformly and by reversed "
        "class frequencies, which needs a network with two last blocks and two images a step.",
        "Contrastive Learning": "not here yet. P. Wang et al., CVPR 2021 (Hybrid-SC): a contrastive branch on two "
        "views of each image beside the classifier. No code of its authors was found, and how its prototypes learn "
        "is not known.",
        "BGP": "formula not found. D. Wang et al., Balanced Gradient Penalty Improves Deep Long-Tailed Learning, ACM "
        "MM 2022, doi 10.1145/3503161.3547763: only its abstract is open (a regularisation loss without class priors); "
        "no code was found, and a guess would bear its name wrongly.",
        "RSG": "not here yet. J. Wang et al., CVPR 2021: a module between two blocks that makes feature maps of rare "
        "classes from those of frequent ones; it needs the network's inside, and new samples within a batch.",
        "Lifted loss": "not here yet. Oh Song et al., CVPR 2016: distances of pairs. How the tables' row was trained "
        "(weight, margin, normalised or not) stands in no source.",
        "Range loss": "not here yet. X. Zhang et al., ICCV 2017: distances within and between classes. Its margin "
        "depends on the features' scale, and the settings of the tables' row stand in no source.",
        "OpenMax": "no training: a score for rejecting unseen classes. `evaluate --open_scorers openmax` computes it "
        "for any model.",
        "OLTR": "not here yet. Z. Liu et al., CVPR 2019: attention, a memory of class centroids and a classifier on "
        "both, each of which belongs to the published model.",
        "IEM": "details not found. Zhu and Yang, CVPR 2020: the memory's slots, similarity, writing rule and losses "
        "stand in no source that is open, and no code was found; a guess would bear its name wrongly.",
        "LUNA": "details not found. Cai et al., AAAI 2022: the density, the neighbours, the threshold and the centres' "
        "update stand in no source that is open, and no code was found; a guess would bear its name wrongly.",
    }
)


def find_method(name: str) -> Method:
    """The method of that name; ValueError with the choices, or with the reason why a row is not offered."""
    if name in METHODS:
        return METHODS[name]
    wanted = name.casefold().replace("_", " ")
    for title, reason in LEFT_OUT.items():
        if wanted == title.casefold():
            raise ValueError(f"method {name!r} is not offered: {reason}")
    raise ValueError(f"There is no method {name!r}; choose one of {', '.join(METHODS)}.")
