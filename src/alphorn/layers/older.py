"""Names that arguments of layers had in Keras 1, by family: one table."""

WEIGHTS = {
    "init": "kernel_initializer",
    "bias": "use_bias",
    "W_regularizer": "kernel_regularizer",
    "b_regularizer": "bias_regularizer",
    "W_constraint": "kernel_constraint",
    "b_constraint": "bias_constraint",
}
DENSE = WEIGHTS | {"output_dim": "units"}
CONVOLUTION = WEIGHTS | {
    "nb_filter": "filters",
    "filter_length": "kernel_size",
    "border_mode": "padding",
    "subsample": "strides",
    "subsample_length": "strides",
    "atrous_rate": "dilation_rate",
}
POOLING = {"pool_length": "pool_size", "stride": "strides", "border_mode": "padding"}
RECURRENT = DENSE | {
    "inner_init": "recurrent_initializer",
    "inner_activation": "recurrent_activation",
    "U_regularizer": "recurrent_regularizer",
    "U_constraint": "recurrent_constraint",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
}
EMBEDDING = {
    "init": "embeddings_initializer",
    "W_regularizer": "embeddings_regularizer",
    "W_constraint": "embeddings_constraint",
}
NORMALIZATION = {
    "beta_init": "beta_initializer",
    "gamma_init": "gamma_initializer",
    "running_mean_init": "moving_mean_initializer",
    "running_std_init": "moving_variance_initializer",
}
SIZES = ("nb_row", "nb_col")
