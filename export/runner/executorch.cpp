// Runs a .pte file with ExecuTorch's C++ API (extension/module). See runner.h for the command line.
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include "runner.h"

// Exported by the runtime's library, but in none of the headers that its wheel carries; declared as far as it is called.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t new_thread_count);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

using executorch::aten::ScalarType;
using executorch::extension::Module;

class Session {
 public:
  Session(const std::string& path, int threads) : module_(path, Module::LoadMode::File) {
    // Before the model is loaded: the delegate takes the pool as it finds it then. "Unsafe" is to do it while one runs.
    auto* pool = executorch::extension::threadpool::get_threadpool();
    if (pool == nullptr || !pool->_unsafe_reset_threadpool(static_cast<uint32_t>(threads))) {
      throw zoo::Error("ExecuTorch cannot use " + std::to_string(threads) + " threads");
    }
    check(module_.load_method("forward"), path + ": no ExecuTorch program that this runtime loads");
    const auto meta = module_.method_meta("forward");
    if (!meta.ok()) throw zoo::Error(path + ": no method 'forward'");
    const auto tensor = meta->num_inputs() == 1 ? meta->input_tensor_meta(0) : executorch::runtime::Error::InvalidArgument;
    if (!tensor.ok() || tensor->scalar_type() != ScalarType::Float) throw zoo::Error(path + ": does not take one float32 tensor");
    sizes_.assign(tensor->sizes().begin(), tensor->sizes().end());
    bytes_ = tensor->nbytes();
  }

  void set_input(const std::vector<float>& values) {
    if (values.size() * sizeof(float) != bytes_) {
      throw zoo::Error("the input has " + std::to_string(values.size()) + " values, the model takes " +
                       std::to_string(bytes_ / sizeof(float)));
    }
    values_ = values;
    input_ = executorch::extension::from_blob(values_.data(), sizes_, ScalarType::Float);
    check(module_.set_input(*input_, 0), "the model does not take the input");
  }

  void run() {
    auto outputs = module_.forward();
    if (!outputs.ok()) check(outputs.error(), "the model failed");
    outputs_ = std::move(*outputs);
  }

  std::vector<float> output() const {
    if (outputs_.size() != 1 || !outputs_[0].isTensor() || outputs_[0].toTensor().scalar_type() != ScalarType::Float) {
      throw zoo::Error("the model does not give one float32 tensor");
    }
    const auto tensor = outputs_[0].toTensor();
    const float* data = tensor.const_data_ptr<float>();
    return {data, data + tensor.numel()};
  }

 private:
  static void check(executorch::runtime::Error error, const std::string& what) {
    if (error != executorch::runtime::Error::Ok) {
      throw zoo::Error(what + " (ExecuTorch error " + std::to_string(static_cast<int>(error)) + ")");
    }
  }

  Module module_;
  std::vector<executorch::aten::SizesType> sizes_;
  size_t bytes_ = 0;
  std::vector<float> values_;
  executorch::extension::TensorPtr input_;
  std::vector<executorch::runtime::EValue> outputs_;
};

}  // namespace

int main(int argc, char** argv) { return zoo::run_main<Session>("executorch", argc, argv); }
