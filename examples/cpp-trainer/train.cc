// A training loop in C++ with libtorch: supervised, checkpointed and resumed exactly like one in Python.
//
//     bitctl train config.yaml          (or ./cpp-trainer [STEPS] by itself)
#include <bitctl/trainer.h>
#include <torch/torch.h>

#include <cstdio>
#include <sstream>
#include <stdexcept>

namespace {

const char* dtype_name(torch::ScalarType type) {
  switch (type) {
    case torch::kFloat32:
      return "F32";
    case torch::kFloat64:
      return "F64";
    case torch::kBFloat16:
      return "BF16";
    case torch::kFloat16:
      return "F16";
    case torch::kInt64:
      return "I64";
    case torch::kByte:
      return "U8";
    default:
      throw std::invalid_argument("a dtype that is not saved here");
  }
}

bitctl::trainer::Tensor view_of(const std::string& name, const torch::Tensor& tensor) {
  if (!tensor.is_contiguous() || !tensor.is_cpu())
    throw std::invalid_argument(name + " is not contiguous in memory");
  return {name, dtype_name(tensor.scalar_type()), tensor.sizes().vec(), tensor.data_ptr()};
}

void copy_back(const bitctl::trainer::Tensor& saved, torch::Tensor tensor) {
  const auto wanted = view_of(saved.name, tensor);
  if (saved.dtype != wanted.dtype || saved.shape != wanted.shape)
    throw std::invalid_argument(saved.name + " has another shape or dtype in the checkpoint");
  std::memcpy(tensor.data_ptr(), saved.data, tensor.nbytes());
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t steps = argc > 1 ? std::stoull(argv[1]) : 300;
  torch::set_num_threads(1);
  torch::manual_seed(1);
  torch::nn::Sequential model(torch::nn::Linear(32, 64), torch::nn::ReLU(), torch::nn::Dropout(0.1),
                              torch::nn::Linear(64, 1));
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-3));

  // What a checkpoint holds: the weights under their names, and as bytes what libtorch itself serializes.
  std::string optimizer_bytes;
  torch::Tensor generator;
  const auto state = [&] {
    bitctl::trainer::State now;
    for (const auto& parameter : model->named_parameters())
      now.model.push_back(view_of(parameter.key(), parameter.value().detach()));
    std::ostringstream out;
    torch::save(optimizer, out);
    optimizer_bytes = out.str();
    now.training.push_back(
        {"optimizer", "U8", {static_cast<int64_t>(optimizer_bytes.size())}, optimizer_bytes.data()});
    generator = torch::globalContext().defaultGenerator(torch::kCPU).get_state();
    now.training.push_back(view_of("generator", generator));
    return now;
  };

  bitctl::trainer::Run run;
  uint64_t step = run.restore([&](const bitctl::trainer::Checkpoint& saved) {
    torch::NoGradGuard no_grad;
    for (auto& parameter : model->named_parameters())
      copy_back(saved.tensor(parameter.key()), parameter.value());
    const auto& bytes = saved.tensor("optimizer");
    std::istringstream in(
        std::string(static_cast<const char*>(bytes.data), static_cast<size_t>(bytes.shape[0])));
    torch::load(optimizer, in);
    auto cpu = torch::globalContext().defaultGenerator(torch::kCPU);
    auto numbers = cpu.get_state();
    copy_back(saved.tensor("generator"), numbers);
    cpu.set_state(numbers);
  });
  if (step > 0) std::printf("going on after step %llu\n", static_cast<unsigned long long>(step));

  while (step < steps) {
    const auto inputs = torch::randn({64, 32});
    const auto loss = torch::mse_loss(model->forward(inputs), inputs.sum(1, true).tanh());
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    ++step;
    bitctl::trainer::Progress progress;
    progress.step = step;
    progress.total_steps = steps;
    progress.loss = loss.item<double>();
    run.progress(progress);
    if (run.checkpoint(step, state) == bitctl::trainer::Outcome::stop) return bitctl::trainer::kStopped;
  }
  return run.finish(state) ? 0 : 1;
}
