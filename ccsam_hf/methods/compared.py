"""The methods that the paper compares with CC-SAM, each as options of both trainers with the source of every value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .printed import printed
from .record import Method, Published, PublishedValues, Setting, by_benchmark

PLAIN: dict[str, Any] = {"perturbation": "none"}
MIXUP: dict[str, Any] = {**PLAIN, "mixup_alpha": 1.0}
COSINE: dict[str, Any] = {"classifier": "cosine"}
CRT: dict[str, Any] = {"rule": "crt", "reinitialize_classifier": True}
CE_FORMULA = "mean_i −log softmax(logits_i)[y_i]"

KANG = "facebookresearch/classifier-balancing"
MISLAS = "dvlab-research/MiSLAS"
SADDLE = "val-iisc/Saddle-LongTail"

MIXUP_SETTINGS = (
    Setting("stage1.mixup_alpha", 1.0, f"{MISLAS} config/cifar10, config/cifar100: *_stage1_mixup.yaml, alpha"),
)
CRT_SETTINGS = (
    Setting(
        "stage2.reinitialize_classifier",
        True,
        f"{KANG} run_networks.py: load_model skips the classifier of stage 1",
    ),
)
_LARGE = {
    "imagenet-lt": "imagenet/imagenet_resnet50",
    "inat2018": "ina2018/ina2018_resnet50",
    "places-lt": "places/places_resnet152",
}
# The files of the MiSLAS release for the large sets, by stage.
LARGE_FILES: Mapping[str, str] = {name: f"{MISLAS} config/{path}_stage1_mixup.yaml" for name, path in _LARGE.items()}
LARGE_FILES_2: Mapping[str, str] = {name: f"{MISLAS} config/{path}_stage2_mislas.yaml" for name, path in _LARGE.items()}
LARGE_MIXUP: PublishedValues = {
    (name, None): Published(file, {"mixup_alpha": 0.2}) for name, file in LARGE_FILES.items()
}

SAM: dict[str, Any] = {"perturbation": "sam"}
LDAM_DRW: dict[str, Any] = {**COSINE, "loss": "ldam_drw"}
# 160 of 200 epochs, when the learning rate falls for the first time.
DEFERRED = 0.8

LDAM = "kaidic/LDAM-DRW"
LADE = "hyperconnect/LADE"
TDE = "KaihuaTang/Long-Tailed-Recognition.pytorch classification"
RESLT = "dvlab-research/Imbalanced-Learning ResLT"
VS = "orparask/VS-Loss class_imbalance"
DDC = "wang22ti/DDC bash_script.sh"

LDAM_SETTINGS = (
    Setting("stage1.loss_args.max_margin", 0.5, f"{LDAM} cifar_train.py: LDAMLoss(max_m=0.5)"),
    Setting("stage1.loss_args.scale", 30.0, f"{LDAM} cifar_train.py: LDAMLoss(s=30)"),
    Setting("stage1.loss_args.beta", 0.9999, f"{LDAM} cifar_train.py: betas of train_rule DRW"),
    Setting("deferred", DEFERRED, f"{LDAM} cifar_train.py: weights from epoch 160 of 200"),
    Setting("lr_decay", 0.01, f"{SADDLE} cifar_train_sam.py: lr x 0.01 after epoch 160, x 0.0001 after 180"),
)
# run.sh has --margin 0.3 for both, the training scripts weights from epoch 60 of 90.
LDAM_LARGE: PublishedValues = {
    ("imagenet-lt", None): Published(
        f"{SADDLE} run.sh, imnet_train_sam.py", {"loss_args": {"max_margin": 0.3}}, deferred=2 / 3
    ),
    ("inat2018", None): Published(
        f"{SADDLE} run.sh, inat_train_sam.py", {"loss_args": {"max_margin": 0.3}}, deferred=2 / 3
    ),
}
LDAM_SAM_LARGE: PublishedValues = {
    key: Published(entry.source, {**entry.stage1, "radius": 0.5}, deferred=entry.deferred)
    for key, entry in LDAM_LARGE.items()
}
TDE_LARGE = {
    "imagenet-lt": f"{TDE}/config/ImageNet_LT/causal_norm.yaml",
    "places-lt": f"{TDE}/config/Places_LT/causal_norm.yaml",
    "inat2018": f"{LADE} config/iNaturalist18/causal.yaml",
}
# β by benchmark and imbalance ratio, with the script that has it.
RESLT_WEIGHTS = {
    ("cifar10-lt", 100): (0.998, "CIFAR/sh/CIFAR10/CIFAR10LT_imf0.01_resnet32sx1_beta0.9980.sh"),
    ("cifar10-lt", 50): (0.998, "CIFAR/sh/CIFAR10/CIFAR10LT_imf0.02_resnet32sx1_beta0.9980.sh"),
    ("cifar10-lt", 10): (0.96, "CIFAR/sh/CIFAR10/CIFAR10LT_imf0.1_resnet32sx1_beta0.9600.sh"),
    ("cifar100-lt", 100): (0.995, "CIFAR/sh/CIFAR100/CIFAR100LT_imf0.01_resnet32sx1_beta0.9950.sh"),
    ("cifar100-lt", 50): (0.99, "CIFAR/sh/CIFAR100/CIFAR100LT_imf0.02_resnet32sx1_bata0.9900.sh"),
    ("cifar100-lt", 10): (0.72, "CIFAR/sh/CIFAR100/CIFAR100LT_imf0.1_resnet32sx1_bata0.7200.sh"),
    ("imagenet-lt", None): (0.99, "ImageNetLT/sh/X50.sh"),
    ("inat2018", None): (0.85, "Inat/sh/R50.sh"),
}
# α and λ by benchmark: the commands of the release's README, which differ from its configuration files.
LADE_WEIGHTS = {"imagenet-lt": (0.05, 0.5), "places-lt": (0.005, 0.1), "inat2018": (0.05, 0.5)}

CE = Method(
    "ce",
    "CE",
    "softmax cross entropy",
    CE_FORMULA,
    PLAIN,
    paper=printed("CE"),
)
CE_MIXUP = Method(
    "ce_mixup",
    "CE + mixup",
    "H. Zhang et al., mixup, ICLR 2018",
    "λ l(x̃, y_i) + (1 − λ) l(x̃, y_j) at x̃ = λ x_i + (1 − λ) x_j, λ ~ Beta(α, α)",
    MIXUP,
    settings=MIXUP_SETTINGS,
    published=by_benchmark(LARGE_MIXUP),
    paper=printed("CE + mixup"),
)
FOCAL_ROW = Method(
    "focal",
    "Focal loss",
    "Lin et al., ICCV 2017",
    "−(1 − p_y)^γ log p_y, p = softmax(logits)",
    {**PLAIN, "loss": "focal", "loss_args": {"gamma": 2.0}},
    settings=(
        Setting(
            "stage1.loss_args.gamma",
            2.0,
            "the default of Lin et al., ICCV 2017; how the tables' row was trained stands in no source",
            chosen=True,
        ),
    ),
    paper=printed("Focal loss"),
)
LDAM_DRW_ROW = Method(
    "ldam_drw",
    "LDAM-DRW",
    "Cao et al., NeurIPS 2019",
    "−log softmax(s (cos_i − m_{y_i} onehot(y_i)))[y_i], m_c ∝ n_c^-¼, later weighted by effective numbers",
    {**PLAIN, **LDAM_DRW},
    deferred=DEFERRED,
    lr_decay=0.01,
    settings=LDAM_SETTINGS,
    published=by_benchmark(LDAM_LARGE),
    paper=printed("LDAM-DRW"),
)
LDAM_DRW_SAM = Method(
    "ldam_drw_sam",
    "LDAM-DRW + SAM",
    "Rangwani et al., NeurIPS 2022",
    "LDAM-DRW at w + ρ ∇L/‖∇L‖, all weights",
    {**SAM, "radius": 0.8, **LDAM_DRW},
    deferred=DEFERRED,
    lr_decay=0.01,
    settings=(
        Setting("stage1.radius", 0.8, f"{SADDLE} run.sh: --rho 0.8 --rho_schedule none, both CIFAR, IR 100"),
        *LDAM_SETTINGS,
    ),
    published=by_benchmark(LDAM_SAM_LARGE),
    paper=printed("LDAM-DRW + SAM"),
    note="ρ is constant here; on ImageNet-LT and iNaturalist it was stepped: 0.05 for 5 epochs, 0.1 to epoch 60, 0.5.",
)
VS_SAM = Method(
    "vs_sam",
    "VS + SAM",
    "Kini et al., NeurIPS 2021; Rangwani et al., NeurIPS 2022",
    "−log softmax((n_c/n_max)^γ logits + τ log π)[y] at w + ρ ∇L/‖∇L‖, all weights",
    {**SAM, "radius": 0.3, "loss": "vs", "loss_args": {"gamma": 0.05, "tau": 1.0}},
    lr_decay=0.01,
    settings=(
        Setting("stage1.radius", 0.3, f"{DDC}: VS, CIFAR-100, exp, IR 100, --rho 0.3 0.3; {SADDLE} has no VS command"),
        Setting("stage1.loss_args.gamma", 0.05, f"{DDC}, the same command; {VS}/train.py defaults to 0.3"),
        Setting("stage1.loss_args.tau", 1.0, f"{DDC}, the same command; the default of {VS}/train.py"),
        Setting("lr_decay", 0.01, f"{SADDLE} cifar_train_sam.py: lr x 0.01 after epoch 160, x 0.0001 after 180"),
    ),
    published=by_benchmark({("cifar10-lt", None): Published(f"{DDC}: VS, CIFAR-10, exp, IR 100", {"radius": 0.1})}),
    paper=printed("VS + SAM"),
    note="ρ, γ and τ are a later comparison's, which trained 400 epochs with RandAugment; tune them for other data.",
)
DECONFOUND_TDE = Method(
    "tde",
    "De-confound-TDE",
    "Tang et al., NeurIPS 2020",
    "CE on multi-head cosines; prediction without the features' moving mean direction",
    {**PLAIN, "classifier": "tde", "classifier_args": {"alpha": 1.5}},
    settings=(
        Setting("stage1.classifier_args.alpha", 1.5, f"{TDE}/config/CIFAR100_LT/causal_norm_32.yaml: alpha, IR 100"),
        Setting("stage1.classifier_args.num_heads", 2, f"{TDE}/config/CIFAR100_LT/causal_norm_32.yaml: num_head"),
        Setting("stage1.classifier_args.scale", 16.0, f"{TDE}/config/CIFAR100_LT/causal_norm_32.yaml: tau"),
        Setting("stage1.classifier_args.gamma", 1 / 32, f"{TDE}/config/CIFAR100_LT/causal_norm_32.yaml: gamma"),
        Setting("stage1.classifier_args.momentum", 0.9, f"{TDE}/run_networks.py: mu, which follows the lr off CIFAR"),
    ),
    published=by_benchmark(
        {
            ("cifar10-lt", None): Published(
                f"{TDE}/config/CIFAR10_LT/causal_norm_32.yaml: alpha, IR 100", {"classifier_args": {"alpha": 1.0}}
            )
        },
        {(name, None): Published(file, {"classifier_args": {"alpha": 3.0}}) for name, file in TDE_LARGE.items()},
    ),
    paper=printed("De-confound-TDE"),
    note="No linear layer has these logits: published with the package's code.",
)
BALANCED_SOFTMAX = Method(
    "balanced_softmax",
    "Balanced Softmax",
    "Ren et al., NeurIPS 2020",
    "−log (n_y e^{logits_y} / Σ_c n_c e^{logits_c})",
    {**PLAIN, "loss": "balanced_softmax"},
    paper=printed("Balanced Softmax"),
    note="Without the meta sampler of the reference. The loss has no hyper-parameter.",
)
LADE_ROW = Method(
    "lade",
    "LADE",
    "Hong et al., CVPR 2021",
    "Balanced Softmax + α Σ_c π_c (−mean_{i∈c} f_ic + s_c + λ s_c²), s_c the importance-weighted log mean of e^f",
    {**PLAIN, "loss": "lade", "loss_args": {"alpha": 0.1, "remine_lambda": 0.01}},
    settings=(
        Setting("stage1.loss_args.alpha", 0.1, f"{LADE} README.md: command for CIFAR-100, IR 100"),
        Setting("stage1.loss_args.remine_lambda", 0.01, f"{LADE} README.md: command for CIFAR-100, IR 100"),
        Setting(
            "stage1.loss_args.importance",
            "sample",
            f"as derived in the paper; {LADE} loss/LADELoss.py weights by the logit's class ('column')",
            chosen=True,
        ),
    ),
    published=by_benchmark(
        {
            (name, None): Published(
                f"{LADE} README.md, config/*/lade.yaml", {"loss_args": {"alpha": alpha, "remine_lambda": weight}}
            )
            for name, (alpha, weight) in LADE_WEIGHTS.items()
        }
    ),
    paper=printed("LADE"),
)
RESLT_ROW = Method(
    "reslt",
    "ResLT",
    "Cui et al., TPAMI 2022",
    "(1 − β) l(Σ_k logits_k) + β · mean of l(logits_k) over the samples of branch k: all, medium + few, few",
    {**PLAIN, "classifier": "reslt"},
    settings=(
        Setting(
            "stage1.classifier_args.branch_weight",
            0.995,
            f"{RESLT}/{RESLT_WEIGHTS['cifar100-lt', 100][1]}: --beta",
        ),
    ),
    published=by_benchmark(
        {
            key: Published(f"{RESLT}/{file}", {"classifier_args": {"branch_weight": weight}})
            for key, (weight, file) in RESLT_WEIGHTS.items()
        }
    ),
    paper=printed("ResLT"),
    note="Branches by shot group, where the release takes ranks.",
)

GCL: dict[str, Any] = {**COSINE, "loss": "gcl"}
CLOUDS = "Keke921/GCLLoss"
ALIGN = (
    "Megvii-BaseDetection/DisAlign "
    "classification/imagenetlt/resnext50/resx50.scratch.imagenet_lt.224size.90e.disalign.10e/config.py"
)
# Smoothing of head and tail and whether BatchNorm shifts, by benchmark and imbalance ratio, with the file.
SMOOTHING = {
    ("cifar10-lt", 100): (0.3, 0.0, False, f"{MISLAS} config/cifar10/cifar10_imb001_stage2_mislas.yaml"),
    ("cifar10-lt", 50): (0.2, 0.0, False, f"{MISLAS} config/cifar10/cifar10_imb002_stage2_mislas.yaml"),
    ("cifar10-lt", 10): (0.1, 0.0, False, f"{MISLAS} config/cifar10/cifar10_imb01_stage2_mislas.yaml"),
    ("cifar100-lt", 100): (0.4, 0.1, True, f"{MISLAS} config/cifar100/cifar100_imb001_stage2_mislas.yaml"),
    ("cifar100-lt", 50): (0.3, 0.0, True, f"{MISLAS} config/cifar100/cifar100_imb002_stage2_mislas.yaml"),
    ("cifar100-lt", 10): (0.2, 0.0, True, f"{MISLAS} config/cifar100/cifar100_imb01_stage2_mislas.yaml"),
    ("imagenet-lt", None): (0.3, 0.0, True, LARGE_FILES_2["imagenet-lt"]),
    ("inat2018", None): (0.3, 0.0, True, LARGE_FILES_2["inat2018"]),
    ("places-lt", None): (0.4, 0.1, True, LARGE_FILES_2["places-lt"]),
}

CE_MIXUP_CRT = Method(
    "ce_mixup_crt",
    "CE + mixup + cRT",
    "Kang et al., ICLR 2020",
    "CE + mixup; then a fresh classifier on class-balanced batches over the frozen backbone",
    MIXUP,
    CRT,
    settings=(*MIXUP_SETTINGS, *CRT_SETTINGS),
    published=by_benchmark(LARGE_MIXUP),
    paper=printed("CE + mixup + cRT"),
)
MISLAS_ROW = Method(
    "mislas",
    "MiSLAS",
    "Zhong et al., CVPR 2021",
    "CE + mixup; then label-aware smoothing with scaled weights and shifted BatchNorm on class-balanced batches",
    MIXUP,
    {
        "rule": "mislas",
        "loss": "label_aware_smoothing",
        "loss_args": {"epsilon_head": 0.4, "epsilon_tail": 0.1},
        "shift_batch_norm": True,
    },
    settings=(
        *MIXUP_SETTINGS,
        Setting("stage2.loss_args.epsilon_head", 0.4, f"{SMOOTHING['cifar100-lt', 100][3]}: smooth_head"),
        Setting("stage2.loss_args.epsilon_tail", 0.1, f"{SMOOTHING['cifar100-lt', 100][3]}: smooth_tail"),
        Setting("stage2.shift_batch_norm", True, f"{SMOOTHING['cifar100-lt', 100][3]}: shift_bn"),
    ),
    published=by_benchmark(
        {
            (name, ratio): Published(
                file if name not in LARGE_FILES else f"{LARGE_FILES[name]}, {file}",
                {"mixup_alpha": 0.2} if name in LARGE_FILES else {},
                {"loss_args": {"epsilon_head": head, "epsilon_tail": tail}, "shift_batch_norm": shift},
            )
            for (name, ratio), (head, tail, shift, file) in SMOOTHING.items()
        }
    ),
    paper=printed("MiSLAS"),
    note="The release trains weights and bias at 0.05 to 0.5 times (lr_factor) the rate of the factors; here at one "
    "rate.",
)
GCL_ROW = Method(
    "gcl",
    "GCL",
    "Li et al., CVPR 2022",
    "−log softmax(s (cos_i − k |ξ_i| w − m onehot(y_i)))[y_i], ξ Gaussian; then the classifier by effective-number "
    "sampling",
    {**MIXUP, **GCL, "loss_args": {"noise_scale": 0.5, "margin": 0.0, "scale": 30.0}},
    {
        "rule": "crt",
        "loss": "gcl",
        "loss_args": {"noise_scale": 0.5, "margin": 0.1, "scale": 20.0},
        "sampling": "effective_number",
    },
    settings=(
        Setting("stage1.mixup_alpha", 1.0, f"{CLOUDS} cifar_train_backbone.py: --mixup, utils.py: mixup_data(alpha=1)"),
        Setting("stage1.loss_args.noise_scale", 0.5, f"{CLOUDS} cifar_train_backbone.py: GCLLoss(noise_mul=0.5)"),
        Setting("stage1.loss_args.margin", 0.0, f"{CLOUDS} cifar_train_backbone.py: GCLLoss(m=0)"),
        Setting("stage1.loss_args.scale", 30.0, f"{CLOUDS} cifar_train_backbone.py: GCLLoss(s=30)"),
        Setting("stage2.loss_args.noise_scale", 0.5, f"{CLOUDS} cifar_train_classifier.py: GCLLoss(noise_mul=0.5)"),
        Setting("stage2.loss_args.margin", 0.1, f"{CLOUDS} cifar_train_classifier.py: GCLLoss(m=0.1)"),
        Setting("stage2.loss_args.scale", 20.0, f"{CLOUDS} cifar_train_classifier.py: GCLLoss(s=20)"),
        Setting("stage2.sampling_beta", 0.9999, f"{CLOUDS} sampler.py: CBEffectNumSampler, 0.9999 to 0.99991 by class"),
    ),
    published=by_benchmark(
        {
            ("places-lt", None): Published(
                f"{CLOUDS} Places-LT/pla_train_backbone.py, pla_train_classifier.py",
                {"mixup_alpha": 0.2, "loss_args": {"noise_scale": 1.0}},
                {"loss_args": {"noise_scale": 1.0, "scale": 15.0}},
            )
        }
    ),
    paper=printed("GCL"),
    note="The release's second stage also mixes its images, has focal weights (γ = 1) and samples classes evenly "
    "unless told otherwise; here it has neither of the first two, and the paper's sampling.",
)
TAU_NORM = Method(
    "tau_norm",
    "τ-norm",
    "Kang et al., ICLR 2020",
    "CE; then W_c ← W_c/‖W_c‖^τ",
    PLAIN,
    # Nothing is trained: weight decay would be refused as having no effect.
    {"rule": "tau_norm", "decay_all_parameters": False},
    settings=(
        Setting("stage2.tau", 1.0, f"{KANG} tau_norm.py prints 0, 0.1 ... 2 and singles none out", chosen=True),
        Setting("stage2.keep_bias", False, f"{KANG} tau_norm.py: logits without the bias"),
    ),
    paper=printed("τ-norm"),
    note="Choose τ on held-out training images: --holdout true --stage2.tau T.",
)
DISALIGN = Method(
    "disalign",
    "DisAlign",
    "Zhang et al., CVPR 2021",
    "CE; then σ (α ⊙ logits + β) + (1 − σ) logits with losses weighted by n_c^-ρ, W frozen",
    PLAIN,
    {"rule": "disalign"},
    settings=(
        Setting("stage2.reweighting_exponent", 1.2, f"{ALIGN}: GRW_SCALE, ImageNet-LT; no other benchmark is there"),
    ),
    paper=printed("DisAlign"),
    note="No linear layer has these logits: published with the package's code.",
)
