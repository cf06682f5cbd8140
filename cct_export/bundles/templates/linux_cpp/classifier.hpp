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
  // channels_first: whether its input is a plane of each channel, not the channels of each pixel.
  Classifier(const std::filesystem::path& model, int threads, bool channels_first);
  ~Classifier();
  Classifier(const Classifier&) = delete;
  Classifier& operator=(const Classifier&) = delete;

  // Returns the logits of one image: height × width × channels bytes, 0–255, row by row.
  std::vector<float> logits(const std::vector<std::uint8_t>& pixels);

  std::size_t height() const { return shape_[channels_first_ ? 2 : 1]; }
  std::size_t width() const { return shape_[channels_first_ ? 3 : 2]; }
  std::size_t channels() const { return shape_[channels_first_ ? 1 : 3]; }
  std::size_t size() const { return height() * width() * channels(); }
  static std::string engine_version();

 private:
  void open(const std::filesystem::path& model, int threads);
  void read_signature();
  void close();
  // Returns the pixels of an image as the model's input has them, of its type.
  template <typename Number>
  std::vector<Number> arranged(const std::vector<std::uint8_t>& pixels) const;

  OrtEnv* env_ = nullptr;
  OrtSessionOptions* options_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  std::string input_, output_;       // names of the tensors
  bool channels_first_;
  std::vector<std::int64_t> shape_;  // 1, height, width, channels; or 1, channels, height, width
  ONNXTensorElementDataType type_ = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
};
