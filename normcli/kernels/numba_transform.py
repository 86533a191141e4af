from normcli.kernels.numpy_tiles import transform
