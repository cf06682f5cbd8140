// The model on ONNX Runtime's C API: pixels in, logits out.
#pragma once

#include <onnxruntime_c_api.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

class Classifier {
 public:
  // Opens an .onnx file; throws std::runtime_error with ONNX Runtime's message.
  Classifier(const std::filesystem::path& model, int threads);
  ~Classifier();
  Classifier(const Classifier&) = delete;
  Classifier& operator=(const Classifier&) = delete;

  // Returns the logits of one image: height × width × channels bytes, 0–255, row by row.
  std::vector<float> logits(const std::vector<std::uint8_t>& pixels);

  std::size_t height() const { return shape_[1]; }
  std::size_t width() const { return shape_[2]; }
  std::size_t channels() const { return shape_[3]; }
  std::size_t size() const { return height() * width() * channels(); }
  static std::string engine_version();

 private:
  void open(const std::filesystem::path& model, int threads);
  void read_signature();
  void close();

  OrtEnv* env_ = nullptr;
  OrtSessionOptions* options_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  std::string input_, output_;       // names of the tensors
  std::vector<std::int64_t> shape_;  // 1, height, width, channels
  ONNXTensorElementDataType type_ = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::vector<float> floats_;  // the input, if it is float32
};
