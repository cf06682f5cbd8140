# ONNX Runtime, as the target engine.
set(ONNXRUNTIME_ROOT "" CACHE PATH "Folder of ONNX Runtime, with include and lib")
find_path(ONNXRUNTIME_INCLUDE onnxruntime_c_api.h
  HINTS ${ONNXRUNTIME_ROOT} PATH_SUFFIXES include include/onnxruntime onnxruntime)
find_library(ONNXRUNTIME_LIBRARY onnxruntime HINTS ${ONNXRUNTIME_ROOT} PATH_SUFFIXES lib)
if(NOT ONNXRUNTIME_INCLUDE OR NOT ONNXRUNTIME_LIBRARY)
  message(FATAL_ERROR "ONNX Runtime not found: see README.md, or pass -DONNXRUNTIME_ROOT=FOLDER")
endif()

add_library(engine INTERFACE)
target_include_directories(engine SYSTEM INTERFACE ${ONNXRUNTIME_INCLUDE})
target_link_libraries(engine INTERFACE ${ONNXRUNTIME_LIBRARY})
