#include "classifier.hpp"

#include <onnxruntime_c_api.h>

#include <array>
#include <cstdlib>
#include <stdexcept>

namespace {

const OrtApi& api() {
  // Null if the library is older than the headers.
  static const OrtApi* const pointer = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (pointer == nullptr) {
    throw std::runtime_error(Classifier::engine() +
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

// Returns the pixels of an image as the model's input has them, of its type.
template <typename Number>
std::vector<Number> arranged(const std::vector<std::uint8_t>& pixels, const Input& input) {
  if (!input.channels_first) return {pixels.begin(), pixels.end()};
  std::vector<Number> planes;
  planes.reserve(pixels.size());
  for (std::size_t channel = 0; channel < input.channels; ++channel) {
    for (std::size_t at = channel; at < pixels.size(); at += input.channels) {
      planes.push_back(pixels[at]);
    }
  }
  return planes;
}

// Returns the sizes of the axes of a batch of one image.
std::array<std::int64_t, 4> shape_of(const Input& input) {
  const auto height = static_cast<std::int64_t>(input.height);
  const auto width = static_cast<std::int64_t>(input.width);
  const auto channels = static_cast<std::int64_t>(input.channels);
  if (input.channels_first) return {1, channels, height, width};
  return {1, height, width, channels};
}

}  // namespace

struct Classifier::Engine {
  ~Engine();
  void open(const std::filesystem::path& model, int threads);
  void read_signature();

  OrtEnv* env = nullptr;
  OrtSessionOptions* options = nullptr;
  OrtSession* session = nullptr;
  OrtMemoryInfo* memory = nullptr;
  std::string input, output;  // names of the tensors
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
};

void Classifier::Engine::open(const std::filesystem::path& model, int threads) {
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // ONNX Runtime reads it as it starts
  check(api().CreateEnv(ORT_LOGGING_LEVEL_WARNING, "classify", &env));
  check(api().CreateSessionOptions(&options));
  check(api().SetIntraOpNumThreads(options, threads));
  check(api().SetSessionGraphOptimizationLevel(options, ORT_ENABLE_ALL));
  check(api().CreateSession(env, model.c_str(), options, &session));
  check(api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
}

void Classifier::Engine::read_signature() {
  input = first_name(api().SessionGetInputName, session);
  output = first_name(api().SessionGetOutputName, session);
  OrtTypeInfo* info = nullptr;
  check(api().SessionGetInputTypeInfo(session, 0, &info));
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  OrtStatus* status = api().CastTypeInfoToTensorInfo(info, &tensor);
  if (status == nullptr) status = api().GetTensorElementType(tensor, &type);
  api().ReleaseTypeInfo(info);
  check(status);
  if (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT && type != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8) {
    throw std::runtime_error("the model's input is not an image");
  }
}

Classifier::Engine::~Engine() {
  if (memory != nullptr) api().ReleaseMemoryInfo(memory);
  if (session != nullptr) api().ReleaseSession(session);
  if (options != nullptr) api().ReleaseSessionOptions(options);
  if (env != nullptr) api().ReleaseEnv(env);
}

std::string Classifier::engine() {
  return std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString();
}

Classifier::Classifier(const std::filesystem::path& model, int threads, const Input& input)
    : input_(input), engine_(std::make_unique<Engine>()) {
  engine_->open(model, threads);
  engine_->read_signature();
}

Classifier::~Classifier() = default;

std::vector<float> Classifier::logits(const std::vector<std::uint8_t>& pixels) {
  if (pixels.size() != size()) {
    throw std::invalid_argument("an image has " + std::to_string(size()) + " bytes, not " +
                                std::to_string(pixels.size()));
  }
  std::vector<float> floats;
  std::vector<std::uint8_t> integers;
  const bool is_float = engine_->type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  if (is_float) {
    floats = arranged<float>(pixels, input_);
  } else {
    integers = arranged<std::uint8_t>(pixels, input_);
  }
  void* data = is_float ? static_cast<void*>(floats.data()) : integers.data();
  const std::size_t bytes = pixels.size() * (is_float ? sizeof(float) : 1);
  const auto shape = shape_of(input_);
  OrtValue* image = nullptr;
  check(api().CreateTensorWithDataAsOrtValue(engine_->memory, data, bytes, shape.data(),
                                             shape.size(), engine_->type, &image));
  const char* inputs[] = {engine_->input.c_str()};
  const char* outputs[] = {engine_->output.c_str()};
  OrtValue* output = nullptr;
  OrtStatus* status =
      api().Run(engine_->session, nullptr, inputs, &image, 1, outputs, 1, &output);
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
