# ncnn, as the target engine.
set(NCNN_ROOT "" CACHE PATH "Folder of ncnn, with include and lib")
find_package(ncnn CONFIG QUIET HINTS ${NCNN_ROOT})
if(NOT ncnn_FOUND)
  message(FATAL_ERROR "ncnn not found: see README.md, or pass -DNCNN_ROOT=FOLDER")
endif()

add_library(engine INTERFACE)
target_link_libraries(engine INTERFACE ncnn)
