# Tests of the emulated device and of the stand-ins on it; included where the others are defined.
foreach(part kernels mistakes streams graphs machine)
  tmd_test(emulated_${part} SOURCES emulation/test_emulated_${part}.cpp emulation/child.c
           LIBS tmd_cuda_device)
endforeach()
foreach(part cublaslt cublaslt_mistakes)
  tmd_test(emulated_${part} SOURCES emulation/test_${part}.c emulation/cublaslt_call.c emulation/child.c
           LIBS tmd_cuda_device tmd_base)
endforeach()
foreach(part cudnn cudnn_conv)
  tmd_test(emulated_${part} SOURCES emulation/test_${part}.c emulation/child.c
           LIBS tmd_cuda_device tmd_base)
endforeach()
tmd_test(emulated_nccl SOURCES emulation/test_nccl.c emulation/child.c
         LIBS tmd_cuda_device tmd_base Threads::Threads)
# The backend's use of the libraries, as only the stand-ins can tell it.
foreach(part attention conv)
  tmd_test(emulated_use_${part} SOURCES emulation/test_cuda_${part}.c emulation/act_values.c
           LIBS tmd_kernels)
endforeach()
tmd_test(emulated_use_graphs SOURCES emulation/test_cuda_graphs.c emulation/child.c LIBS tmd_kernels)
get_property(emulated_tests DIRECTORY PROPERTY TESTS)
set_tests_properties(${emulated_tests} PROPERTIES LABELS cuda)
