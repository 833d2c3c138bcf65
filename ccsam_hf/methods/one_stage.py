"""Methods with one stage of training: losses, classifiers and SAM."""

from __future__ import annotations

from typing import Any

from .parts import CE_FORMULA, COSINE, LARGE_MIXUP, MIXUP, MIXUP_SETTINGS, PLAIN, SADDLE
from .record import Method, Published, PublishedValues, Setting, by_benchmark, figures

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
    paper=figures((65.68, 70.70, 74.81), (34.84, 38.43, 43.90)),
)
CE_MIXUP = Method(
    "ce_mixup",
    "CE + mixup",
    "H. Zhang et al., mixup, ICLR 2018",
    "λ l(x̃, y_i) + (1 − λ) l(x̃, y_j) at x̃ = λ x_i + (1 − λ) x_j, λ ~ Beta(α, α)",
    MIXUP,
    settings=MIXUP_SETTINGS,
    published=by_benchmark(LARGE_MIXUP),
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
    note="No linear layer has these logits: published with the package's code.",
)
BALANCED_SOFTMAX = Method(
    "balanced_softmax",
    "Balanced Softmax",
    "Ren et al., NeurIPS 2020",
    "−log (n_y e^{logits_y} / Σ_c n_c e^{logits_c})",
    {**PLAIN, "loss": "balanced_softmax"},
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
    note="Branches by shot group, where the release takes ranks.",
)
