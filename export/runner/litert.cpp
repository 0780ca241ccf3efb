// Runs a .tflite file on the CPU with the C interface of LiteRT's shared library. See runner.h for the command line.
#include <cstring>

#include "runner.h"

// LiteRT's wheels carry the library without its headers: here are the declarations that are used, as the published C interface
// (litert/c) gives them. Handles are pointers, a status of 0 is success.
extern "C" {
typedef int LiteRtStatus;
typedef struct LiteRtEnvironmentT* LiteRtEnvironment;
typedef struct LiteRtModelT* LiteRtModel;
typedef struct LiteRtOptionsT* LiteRtOptions;
typedef struct LiteRtOpaqueOptionsT* LiteRtOpaqueOptions;
typedef struct LiteRtCompiledModelT* LiteRtCompiledModel;
typedef struct LiteRtSubgraphT* LiteRtSubgraph;
typedef struct LiteRtTensorT* LiteRtTensor;
typedef struct LiteRtTensorBufferT* LiteRtTensorBuffer;
typedef struct LiteRtTensorBufferRequirementsT* LiteRtTensorBufferRequirements;
typedef struct {
  int32_t element_type;  // 1 is float32
  uint32_t rank : 7, has_strides : 1;
  int32_t dimensions[8];
  uint32_t strides[8];
} LiteRtRankedTensorType;

LiteRtStatus LiteRtCreateEnvironment(int count, const void* options, LiteRtEnvironment*);
LiteRtStatus LiteRtCreateModelFromFile(LiteRtEnvironment, const char* path, LiteRtModel*);
LiteRtStatus LiteRtGetModelSubgraph(LiteRtModel, size_t index, LiteRtSubgraph*);
LiteRtStatus LiteRtGetNumSubgraphInputs(LiteRtSubgraph, size_t*);
LiteRtStatus LiteRtGetNumSubgraphOutputs(LiteRtSubgraph, size_t*);
LiteRtStatus LiteRtGetSubgraphInput(LiteRtSubgraph, size_t index, LiteRtTensor*);
LiteRtStatus LiteRtGetSubgraphOutput(LiteRtSubgraph, size_t index, LiteRtTensor*);
LiteRtStatus LiteRtGetRankedTensorType(LiteRtTensor, LiteRtRankedTensorType*);
LiteRtStatus LiteRtCreateOptions(LiteRtOptions*);
LiteRtStatus LiteRtSetOptionsHardwareAccelerators(LiteRtOptions, int accelerators);
LiteRtStatus LiteRtCreateOpaqueOptions(const char* identifier, void* payload, void (*destroy)(void*), LiteRtOpaqueOptions*);
LiteRtStatus LiteRtAddOpaqueOptions(LiteRtOptions, LiteRtOpaqueOptions);
LiteRtStatus LiteRtCreateCompiledModel(LiteRtEnvironment, LiteRtModel, LiteRtOptions, LiteRtCompiledModel*);
LiteRtStatus LiteRtGetCompiledModelInputBufferRequirements(LiteRtCompiledModel, size_t signature, size_t index,
                                                           LiteRtTensorBufferRequirements*);
LiteRtStatus LiteRtGetCompiledModelOutputBufferRequirements(LiteRtCompiledModel, size_t signature, size_t index,
                                                            LiteRtTensorBufferRequirements*);
LiteRtStatus LiteRtCreateManagedTensorBufferFromRequirements(LiteRtEnvironment, const LiteRtRankedTensorType*,
                                                             LiteRtTensorBufferRequirements, LiteRtTensorBuffer*);
LiteRtStatus LiteRtLockTensorBuffer(LiteRtTensorBuffer, void** address, int mode);  // 0 reads, 1 writes
LiteRtStatus LiteRtUnlockTensorBuffer(LiteRtTensorBuffer);
LiteRtStatus LiteRtRunCompiledModel(LiteRtCompiledModel, size_t signature, size_t inputs, LiteRtTensorBuffer*, size_t outputs,
                                    LiteRtTensorBuffer*);
}
static_assert(sizeof(LiteRtRankedTensorType) == 72, "the library's own size");

namespace {

constexpr int kCpu = 1, kFloat32 = 1, kRead = 0, kWrite = 1;

// Handles live until the process ends: there is one model, and an orderly release would only add what can fail.
class Session {
 public:
  Session(const std::string& path, int threads) {
    check(LiteRtCreateEnvironment(0, nullptr, &environment_), "LiteRT does not start");
    check(LiteRtCreateModelFromFile(environment_, path.c_str(), &model_), path + ": no LiteRT model");

    LiteRtOptions options = nullptr;
    LiteRtOpaqueOptions cpu = nullptr;
    // The CPU's options travel as TOML under this name; the helpers that write it are not exported by the library.
    const std::string toml = "num_threads = " + std::to_string(threads) + "\n";
    check(LiteRtCreateOptions(&options), "LiteRT makes no options");
    check(LiteRtSetOptionsHardwareAccelerators(options, kCpu), "LiteRT has no CPU");
    check(LiteRtCreateOpaqueOptions("xnnpack", strdup(toml.c_str()), std::free, &cpu), "LiteRT takes no CPU options");
    check(LiteRtAddOpaqueOptions(options, cpu), "LiteRT takes no CPU options");
    check(LiteRtCreateCompiledModel(environment_, model_, options, &compiled_), path + ": does not load");

    LiteRtSubgraph graph = nullptr;
    LiteRtTensor tensor = nullptr;
    LiteRtTensorBufferRequirements needs = nullptr;
    size_t inputs = 0, outputs = 0;
    check(LiteRtGetModelSubgraph(model_, 0, &graph), path + ": has no graph");
    check(LiteRtGetNumSubgraphInputs(graph, &inputs), path + ": has no inputs");
    check(LiteRtGetNumSubgraphOutputs(graph, &outputs), path + ": has no outputs");
    if (inputs != 1 || outputs != 1) throw zoo::Error(path + ": does not take and give one tensor");
    check(LiteRtGetSubgraphInput(graph, 0, &tensor), path + ": has no input");
    input_values_ = values_of(tensor, path, &type_);
    check(LiteRtGetCompiledModelInputBufferRequirements(compiled_, 0, 0, &needs), path + ": has no input");
    check(LiteRtCreateManagedTensorBufferFromRequirements(environment_, &type_, needs, &input_), "no memory for the input");
    check(LiteRtGetSubgraphOutput(graph, 0, &tensor), path + ": has no output");
    output_values_ = values_of(tensor, path, &type_);
    check(LiteRtGetCompiledModelOutputBufferRequirements(compiled_, 0, 0, &needs), path + ": has no output");
    check(LiteRtCreateManagedTensorBufferFromRequirements(environment_, &type_, needs, &output_), "no memory for the output");
  }

  void set_input(const std::vector<float>& values) {
    if (values.size() != input_values_) {
      throw zoo::Error("the input has " + std::to_string(values.size()) + " values, the model takes " +
                       std::to_string(input_values_));
    }
    void* address = nullptr;
    check(LiteRtLockTensorBuffer(input_, &address, kWrite), "the input cannot be written");
    std::memcpy(address, values.data(), values.size() * sizeof(float));
    check(LiteRtUnlockTensorBuffer(input_), "the input cannot be written");
  }

  void run() { check(LiteRtRunCompiledModel(compiled_, 0, 1, &input_, 1, &output_), "the model failed"); }

  std::vector<float> output() const {
    std::vector<float> values(output_values_);
    void* address = nullptr;
    check(LiteRtLockTensorBuffer(output_, &address, kRead), "the output cannot be read");
    std::memcpy(values.data(), address, values.size() * sizeof(float));
    check(LiteRtUnlockTensorBuffer(output_), "the output cannot be read");
    return values;
  }

 private:
  static void check(LiteRtStatus status, const std::string& what) {
    if (status != 0) throw zoo::Error(what + " (LiteRT status " + std::to_string(status) + ")");
  }

  static size_t values_of(LiteRtTensor tensor, const std::string& path, LiteRtRankedTensorType* type) {
    check(LiteRtGetRankedTensorType(tensor, type), path + ": has a tensor without a shape");
    if (type->element_type != kFloat32) throw zoo::Error(path + ": does not take and give float32");
    size_t values = 1;
    for (uint32_t i = 0; i < type->rank; ++i) {
      if (type->dimensions[i] < 1) throw zoo::Error(path + ": has no fixed shape");
      values *= static_cast<size_t>(type->dimensions[i]);
    }
    return values;
  }

  LiteRtEnvironment environment_ = nullptr;
  LiteRtModel model_ = nullptr;
  LiteRtCompiledModel compiled_ = nullptr;
  LiteRtTensorBuffer input_ = nullptr, output_ = nullptr;
  LiteRtRankedTensorType type_{};
  size_t input_values_ = 0, output_values_ = 0;
};

}  // namespace

int main(int argc, char** argv) { return zoo::run_main<Session>("litert", argc, argv); }
