"""How alike two representations of the same samples are; names load when first used."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {
    "Block": "trajectories",
    "DEFAULT": "measures",
    "Layer": "measures",
    "MEASURES": "measures",
    "Measure": "measures",
    "MotionKernel": "dtw",
    "POSE": "trajectories",
    "SensorimotorAlignment": "motion",
    "canonical_correlations": "cca",
    "cka_angular_distance": "cka",
    "cknna": "neighbors",
    "cycle_knn": "neighbors",
    "dissimilarities": "representational",
    "distance_correlation": "distances",
    "dtw_distances": "dtw",
    "information_imbalance": "neighbor_ranks",
    "knn_edit_similarity": "neighbor_lists",
    "knn_jaccard": "neighbors",
    "knn_lcs": "neighbor_lists",
    "knn_rank_similarity": "neighbor_ranks",
    "linear_cka": "cka",
    "linear_predictivity": "regression",
    "load_measure": "measures",
    "mean_cca": "cca",
    "mean_squared_cca": "squared_cca",
    "motion_alignment": "motion",
    "motion_features": "motion",
    "mutual_knn": "neighbors",
    "orthogonal_predictivity": "regression",
    "polynomial_cka": "cka",
    "procrustes_angle_distance": "procrustes",
    "procrustes_distance": "procrustes",
    "procrustes_similarity": "procrustes",
    "pwcca": "weighted_cca",
    "rbf_cka": "cka",
    "ridge_cca": "regularised_cca",
    "rsa": "representational",
    "rv": "cka",
    "sensorimotor_alignment": "motion",
    "shape_distance": "procrustes",
    "stream_linear_cka": "streaming",
    "svcca": "cca",
    "unpad": "trajectories",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)
