# The libtorch of a PyTorch wheel, in TORCH_FOLDER (include/, lib/). The wheel's own CMake package asks for a whole CUDA toolkit;
# what is compiled here includes headers of libtorch only. libtorch_cuda registers itself when it is loaded, so it is linked
# though nothing names it.
set(TORCH_INCLUDE_DIRS ${TORCH_FOLDER}/include ${TORCH_FOLDER}/include/torch/csrc/api/include)
set(TORCH_LIBRARIES -L${TORCH_FOLDER}/lib -Wl,--allow-shlib-undefined -Wl,--no-as-needed -ltorch -ltorch_cuda -ltorch_cpu -lc10_cuda
    -lc10 -Wl,--as-needed)
find_file(TORCH_HEADER torch/torch.h PATHS ${TORCH_INCLUDE_DIRS} NO_DEFAULT_PATH)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Torch REQUIRED_VARS TORCH_HEADER)
