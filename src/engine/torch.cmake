# libtorch as the interpreter ${BITCTL_PYTHON} has it: the target bitctl_torch, BITCTL_TORCH_VERSION, and
# BITCTL_TORCH_LIBRARIES, the folder of its libraries.
set(BITCTL_TORCH_DIRECT OFF CACHE BOOL "Link libtorch_cpu and libc10 without asking find_package(Torch)")

execute_process(
  COMMAND ${BITCTL_PYTHON} -c "import os, torch
print(torch.__version__, os.path.dirname(torch.__file__), torch.utils.cmake_prefix_path,
      int(torch._C._GLIBCXX_USE_CXX11_ABI), torch.version.cuda or torch.version.hip or 'cpu', sep='\\n')"
  RESULT_VARIABLE failed OUTPUT_VARIABLE answer ERROR_VARIABLE reason OUTPUT_STRIP_TRAILING_WHITESPACE)
if(failed)
  message(FATAL_ERROR "bitctl: no torch in ${BITCTL_PYTHON} (BITCTL_PYTHON). Run scripts/setup, or configure with "
                      "-DBITCTL_ENGINE=OFF: everything but tensor checks and `bitctl chat` works without.\n${reason}")
endif()
string(REPLACE "\n" ";" answer "${answer}")
list(GET answer 0 BITCTL_TORCH_VERSION)
list(GET answer 1 torch_folder)
list(GET answer 2 torch_prefix)
list(GET answer 3 torch_cxx11_abi)
list(GET answer 4 torch_device)

set(BITCTL_TORCH_LIBRARIES ${torch_folder}/lib)

# A CUDA wheel's package wants nvcc and ends the configuration without it; the module needs none of CUDA's headers.
find_program(BITCTL_NVCC nvcc HINTS ENV CUDA_HOME PATH_SUFFIXES bin)
add_library(bitctl_torch INTERFACE)
if(BITCTL_TORCH_DIRECT OR (NOT torch_device STREQUAL "cpu" AND NOT BITCTL_NVCC))
  foreach(name torch_cpu c10)
    find_library(BITCTL_LIB_${name} ${name} PATHS ${BITCTL_TORCH_LIBRARIES} REQUIRED NO_DEFAULT_PATH)
    target_link_libraries(bitctl_torch INTERFACE ${BITCTL_LIB_${name}})
  endforeach()
  target_include_directories(bitctl_torch SYSTEM INTERFACE
    ${torch_folder}/include ${torch_folder}/include/torch/csrc/api/include)
  target_compile_definitions(bitctl_torch INTERFACE _GLIBCXX_USE_CXX11_ABI=${torch_cxx11_abi})
else()
  # Debian's own torch names a prefix that is not there; its package is found without one.
  if(EXISTS ${torch_prefix})
    list(APPEND CMAKE_PREFIX_PATH ${torch_prefix})
  endif()
  set(CMAKE_MESSAGE_LOG_LEVEL ERROR)  # it warns of libraries that the wheel does not ship
  find_package(Torch REQUIRED)
  unset(CMAKE_MESSAGE_LOG_LEVEL)
  target_link_libraries(bitctl_torch INTERFACE ${TORCH_LIBRARIES})
endif()
message(STATUS "bitctl: engine with torch ${BITCTL_TORCH_VERSION} of ${torch_folder}")
