// The trainer's side of bitctl for programs in C++17 and later: what `import bitctl` is for Python. Its
// checkpoints are the same files, saved by the same writer.
//
//     bitctl::trainer::Run run;
//     uint64_t step = run.restore([&](const bitctl::trainer::Checkpoint& saved) { … copy its tensors … });
//     while (step < steps) {
//       …                                           // one optimizer step
//       run.progress({++step, steps, loss});
//       if (run.checkpoint(step, state) == bitctl::trainer::Outcome::stop) return bitctl::trainer::kStopped;
//     }
//     run.finish(state);
//
// Outside bitctl every call does nothing. Nothing throws: a failure is one line on stderr, and from there on
// the run is supervised by its exit alone. The one exception: where there is a checkpoint to go on from and
// it cannot be put back, the process ends with 125, since to train on from step 0 would ruin the run.
//
// One thread calls all of it, in the process that bitctl started. Nothing here waits for a disk but
// restore(), finish(), and a checkpoint() that is asked to stop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace bitctl::trainer {

constexpr int kStopped = 75;  // what a process that was asked to leave ends with

// Elements one behind the other, row by row, in this machine's memory.
struct Tensor {
  std::string name;
  std::string dtype;  // as safetensors calls it: "F32", "BF16", "I64", "U8", …
  std::vector<int64_t> shape;
  const void* data = nullptr;
};

// What a checkpoint holds. The names in each of the two are different from each other.
struct State {
  std::vector<Tensor> model;     // model.safetensors: what others will load
  std::vector<Tensor> training;  // training.safetensors: the optimizer, the random generators
  std::string text;              // comes back as it is; a position in the data, say
  // Of this step, for `checkpoints: {keep_best: …}`; only finite ones are kept.
  std::vector<std::pair<std::string, double>> metrics;
};
using StateOf = std::function<State()>;  // asked only when a snapshot is due

// A checkpoint, verified; its tensors are views that end with restore().
class Checkpoint {
 public:
  uint64_t step() const { return step_; }
  const std::vector<Tensor>& model() const { return model_; }
  const std::vector<Tensor>& training() const { return training_; }
  const std::string& text() const { return text_; }
  // The tensor of that name; std::out_of_range where there is none.
  const Tensor& tensor(const std::string& name) const;

 private:
  friend class Run;
  uint64_t step_ = 0;
  std::vector<Tensor> model_, training_;
  std::string text_;
};

struct Progress {
  uint64_t step = 0;  // completed optimizer steps
  std::optional<uint64_t> total_steps;
  std::optional<double> loss;
  std::optional<double> lr;
  std::optional<double> epoch;
  std::optional<double> total_epochs;
};

// What goes on from now on; its own history says how long that takes before it counts as hung.
enum class Phase : uint32_t { train = 1, eval = 2, checkpoint = 3, busy = 4 };  // busy: as long as it wants

enum class Outcome {
  not_due,
  deferred,  // both slots are in use; due again at the next step
  taken,     // complete in memory that outlives this process
  stop,      // bitctl asks it to leave: end the process with kStopped
};

class Run {
 public:
  Run();
  ~Run();
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // Whether a supervisor listens.
  bool is_supervised() const;

  // Hands the newest checkpoint to `put_back`, which throws where it does not fit. Returns the steps that it
  // had completed; 0, and put_back is not called, for a fresh start. Once, before the first step.
  uint64_t restore(const std::function<void(const Checkpoint&)>& put_back);

  // Cheap enough for every step: it is told at most every 50 ms, the newest counts.
  void progress(const Progress& progress);

  void enter(Phase phase, const std::string& text = {});

  // Offers the state after `step` steps. It is copied before this returns.
  Outcome checkpoint(uint64_t step, const StateOf& state);

  // The finished model: one last snapshot, durable, linked into <run>/model. True when it is.
  bool finish(const StateOf& state);

 private:
  class Session;
  std::unique_ptr<Session> session_;
};

}  // namespace bitctl::trainer
