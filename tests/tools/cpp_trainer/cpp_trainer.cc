// A trainer that knows nothing but the installed header: cpp_trainer STEPS [WIDTH [nan]]
#include <bitctl/trainer.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace bitctl::trainer;

int main(int argc, char** argv) {
  const uint64_t steps = std::stoull(argv[1]);
  const size_t width = argc > 2 ? std::stoul(argv[2]) : 1000;
  const bool diverges = argc > 3;
  std::vector<float> weights(width, 1.0F), momentum(width, 0.0F);
  uint64_t random = 1;
  const auto state = [&] {
    State now;
    now.model.push_back({"weights", "F32", {static_cast<int64_t>(width)}, weights.data()});
    now.training.push_back({"momentum", "F32", {static_cast<int64_t>(width)}, momentum.data()});
    now.training.push_back({"random", "U64", {}, &random});
    now.text = "position " + std::to_string(random);
    now.metrics.emplace_back("weight", weights[0]);
    now.metrics.emplace_back("no number", NAN);
    return now;
  };
  const auto copy = [](const Checkpoint& saved, const char* name, std::vector<float>& to) {
    const Tensor& from = saved.tensor(name);
    if (from.dtype != "F32" || from.shape != std::vector<int64_t>{static_cast<int64_t>(to.size())})
      throw std::invalid_argument(std::string(name) + " has another shape");
    std::memcpy(to.data(), from.data, to.size() * sizeof(float));
  };

  Run run;
  uint64_t step = run.restore([&](const Checkpoint& saved) {
    copy(saved, "weights", weights);
    copy(saved, "momentum", momentum);
    std::memcpy(&random, saved.tensor("random").data, sizeof random);
    if (saved.text() != "position " + std::to_string(random)) throw std::invalid_argument("another text");
  });
  while (step < steps) {
    for (size_t i = 0; i < width; ++i) {
      random = random * 6364136223846793005U + 1442695040888963407U;
      momentum[i] = 0.9F * momentum[i] + static_cast<float>(random >> 40) * 1e-9F;
      weights[i] -= momentum[i];
    }
    if (diverges && step == 12) weights[0] = NAN;
    Progress progress;
    progress.step = ++step;
    progress.total_steps = steps;
    progress.loss = weights[0];
    run.progress(progress);
    if (run.checkpoint(step, state) == Outcome::stop) return kStopped;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return run.finish(state) ? 0 : 1;
}
