# tmd_cuda_device over the CUDA toolkit, cuDNN and NCCL of this machine.
set(CMAKE_CUDA_STANDARD 17)
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 100)
endif()
enable_language(CUDA)
# Debian 12's CMake, 3.25.1, stops at toolkits without this library, which is no longer made.
add_library(CUDA::nvToolsExt INTERFACE IMPORTED)
find_package(CUDAToolkit 12.8 REQUIRED)
find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
find_library(CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} REQUIRED)
find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} REQUIRED)

add_library(tmd_cuda_device INTERFACE)
target_include_directories(tmd_cuda_device INTERFACE ${CMAKE_CURRENT_LIST_DIR}/nvcc)
target_include_directories(tmd_cuda_device SYSTEM INTERFACE ${CUDNN_INCLUDE_DIR} ${NCCL_INCLUDE_DIR})
target_link_libraries(tmd_cuda_device INTERFACE CUDA::cudart CUDA::cublasLt ${CUDNN_LIBRARY}
                                                ${NCCL_LIBRARY})
