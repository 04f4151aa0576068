# Kernels for NVIDIA cards, built with -DSTEER_CUDA=ON: they need nvcc and a libtorch that was itself built for CUDA.
option(STEER_CUDA "Build the kernels for NVIDIA cards" OFF)
if(NOT STEER_CUDA)
  return()
endif()

if(NOT TARGET torch_cuda)
  message(FATAL_ERROR "STEER_CUDA=ON needs a libtorch built for CUDA, but ${TORCH_INSTALL_PREFIX} is built for the CPU "
                      "alone; name another with Torch_DIR or leave STEER_CUDA off")
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR "STEER_CUDA=ON needs nvcc, but CMake found none; put it on the PATH, name it with "
                      "CMAKE_CUDA_COMPILER, or leave STEER_CUDA off")
endif()
# libtorch's configuration turns CMAKE_CUDA_ARCHITECTURES off and puts architectures of its own into the flags, among
# them some that newer compilers no longer know. What the user said stands in the cache.
set(_architectures "$CACHE{CMAKE_CUDA_ARCHITECTURES}")
if(NOT _architectures)
  set(_architectures 80 86 89 90 100)  # Ampere, Ada, Hopper, Blackwell
endif()
set(CMAKE_CUDA_ARCHITECTURES ${_architectures})
string(REGEX REPLACE " *-gencode[ =]arch=[^ ]+" "" CMAKE_CUDA_FLAGS "${CMAKE_CUDA_FLAGS}")
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

# Device code sees no header of libtorch and none of its flags.
file(GLOB _kernels CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/*/cuda/*.cu")
add_library(steer_cuda_kernels OBJECT ${_kernels})
target_include_directories(steer_cuda_kernels PRIVATE "${PROJECT_SOURCE_DIR}/src")
target_compile_features(steer_cuda_kernels PRIVATE cuda_std_20)
set_target_properties(steer_cuda_kernels PROPERTIES POSITION_INDEPENDENT_CODE ON)
