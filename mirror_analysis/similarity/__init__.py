"""How alike two representations of the same samples are; names load when first used."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {
    "Block": "motion.trajectories",
    "DEFAULT": "measures",
    "Layer": "measures",
    "MEASURES": "measures",
    "Measure": "measures",
    "MotionKernel": "motion.dtw",
    "POSE": "motion.trajectories",
    "SensorimotorAlignment": "motion.alignment",
    "canonical_correlations": "cca.mean",
    "cka_angular_distance": "cka",
    "cknna": "neighbors.aligned",
    "cycle_knn": "neighbors.sets",
    "dissimilarities": "rdm.comparison",
    "distance_correlation": "distances",
    "dtw_distances": "motion.dtw",
    "information_imbalance": "neighbors.ranks",
    "knn_edit_similarity": "neighbors.lists",
    "knn_jaccard": "neighbors.sets",
    "knn_lcs": "neighbors.lists",
    "knn_rank_similarity": "neighbors.ranks",
    "linear_cka": "cka",
    "linear_predictivity": "regression",
    "load_measure": "measures",
    "mean_cca": "cca.mean",
    "mean_squared_cca": "cca.squared",
    "motion_alignment": "motion.alignment",
    "motion_features": "motion.alignment",
    "mutual_knn": "neighbors.sets",
    "orthogonal_predictivity": "regression",
    "polynomial_cka": "cka",
    "procrustes_angle_distance": "procrustes",
    "procrustes_distance": "procrustes",
    "procrustes_similarity": "procrustes",
    "pwcca": "cca.weighted",
    "rbf_cka": "cka",
    "ridge_cca": "cca.regularised",
    "rsa": "rdm.comparison",
    "rv": "cka",
    "sensorimotor_alignment": "motion.alignment",
    "shape_distance": "procrustes",
    "stream_linear_cka": "streaming",
    "svcca": "cca.mean",
    "unpad": "motion.trajectories",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)
