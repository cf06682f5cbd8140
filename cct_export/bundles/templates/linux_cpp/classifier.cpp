#include "classifier.hpp"

#include <cstdlib>
#include <stdexcept>

namespace {

const OrtApi& api() {
  // Null if the library is older than the headers.
  static const OrtApi* const pointer = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (pointer == nullptr) {
    throw std::runtime_error("ONNX Runtime " + Classifier::engine_version() +
                             " is older than the headers that this was compiled with");
  }
  return *pointer;
}

void check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = api().GetErrorMessage(status);
  api().ReleaseStatus(status);
  throw std::runtime_error(message);
}

// Returns the name of the first input or output.
template <typename Get>
std::string first_name(Get get, const OrtSession* session) {
  OrtAllocator* allocator = nullptr;
  check(api().GetAllocatorWithDefaultOptions(&allocator));
  char* name = nullptr;
  check(get(session, 0, allocator, &name));
  const std::string copy = name;
  check(api().AllocatorFree(allocator, name));
  return copy;
}

}  // namespace

std::string Classifier::engine_version() { return OrtGetApiBase()->GetVersionString(); }

Classifier::Classifier(const std::filesystem::path& model, int threads, bool channels_first)
    : channels_first_(channels_first) {
  try {
    open(model, threads);
    read_signature();
  } catch (...) {
    close();
    throw;
  }
}

Classifier::~Classifier() { close(); }

void Classifier::open(const std::filesystem::path& model, int threads) {
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // ONNX Runtime reads it as it starts
  check(api().CreateEnv(ORT_LOGGING_LEVEL_WARNING, "classify", &env_));
  check(api().CreateSessionOptions(&options_));
  check(api().SetIntraOpNumThreads(options_, threads));
  check(api().SetSessionGraphOptimizationLevel(options_, ORT_ENABLE_ALL));
  check(api().CreateSession(env_, model.c_str(), options_, &session_));
  check(api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
}

void Classifier::read_signature() {
  input_ = first_name(api().SessionGetInputName, session_);
  output_ = first_name(api().SessionGetOutputName, session_);
  OrtTypeInfo* info = nullptr;
  check(api().SessionGetInputTypeInfo(session_, 0, &info));
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  std::size_t rank = 0;
  OrtStatus* status = api().CastTypeInfoToTensorInfo(info, &tensor);
  if (status == nullptr) status = api().GetTensorElementType(tensor, &type_);
  if (status == nullptr) status = api().GetDimensionsCount(tensor, &rank);
  shape_.resize(rank);
  if (status == nullptr) status = api().GetDimensions(tensor, shape_.data(), rank);
  api().ReleaseTypeInfo(info);
  check(status);
  const bool supported = type_ == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ||
                         type_ == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  if (rank != 4 || !supported) throw std::runtime_error("the model's input is not an image");
  shape_[0] = 1;  // -1 if the batch size is dynamic
}

void Classifier::close() {
  if (memory_ != nullptr) api().ReleaseMemoryInfo(memory_);
  if (session_ != nullptr) api().ReleaseSession(session_);
  if (options_ != nullptr) api().ReleaseSessionOptions(options_);
  if (env_ != nullptr) api().ReleaseEnv(env_);
}

template <typename Number>
std::vector<Number> Classifier::arranged(const std::vector<std::uint8_t>& pixels) const {
  if (!channels_first_) return {pixels.begin(), pixels.end()};
  std::vector<Number> planes;
  planes.reserve(pixels.size());
  for (std::size_t channel = 0; channel < channels(); ++channel) {
    for (std::size_t at = channel; at < pixels.size(); at += channels()) {
      planes.push_back(pixels[at]);
    }
  }
  return planes;
}

std::vector<float> Classifier::logits(const std::vector<std::uint8_t>& pixels) {
  if (pixels.size() != size()) {
    throw std::invalid_argument("an image has " + std::to_string(size()) + " bytes, not " +
                                std::to_string(pixels.size()));
  }
  std::vector<float> floats;
  std::vector<std::uint8_t> integers;
  const bool is_float = type_ == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  if (is_float) {
    floats = arranged<float>(pixels);
  } else {
    integers = arranged<std::uint8_t>(pixels);
  }
  void* data = is_float ? static_cast<void*>(floats.data()) : integers.data();
  const std::size_t bytes = pixels.size() * (is_float ? sizeof(float) : 1);
  OrtValue* image = nullptr;
  check(api().CreateTensorWithDataAsOrtValue(memory_, data, bytes, shape_.data(), shape_.size(),
                                             type_, &image));
  const char* inputs[] = {input_.c_str()};
  const char* outputs[] = {output_.c_str()};
  OrtValue* output = nullptr;
  OrtStatus* status =
      api().Run(session_, nullptr, inputs, &image, 1, outputs, 1, &output);
  api().ReleaseValue(image);
  check(status);

  float* values = nullptr;
  std::size_t count = 0;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  status = api().GetTensorTypeAndShape(output, &info);
  if (status == nullptr) status = api().GetTensorShapeElementCount(info, &count);
  if (status == nullptr) {
    status = api().GetTensorMutableData(output, reinterpret_cast<void**>(&values));
  }
  const std::vector<float> logits =
      status == nullptr ? std::vector<float>(values, values + count) : std::vector<float>();
  if (info != nullptr) api().ReleaseTensorTypeAndShapeInfo(info);
  api().ReleaseValue(output);
  check(status);
  return logits;
}
