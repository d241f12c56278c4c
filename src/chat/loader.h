// The thread that finds a model and opens it; everything slow about a start happens here. What comes of it
// arrives through events().
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <variant>

#include "base/clock.h"
#include "base/result.h"
#include "chat/mailbox.h"
#include "chat/model_files.h"
#include "decode/decoder.h"

namespace bitctl {

struct OpenOptions {
  std::string engine;  // "native", "torch", "transformers"; empty: native, transformers where that cannot
  std::string device = "auto";
  std::string base_model;  // what adapters go on; empty: what they name
  bool map = true;         // false: read the weights into memory
  Duration lock_limit = std::chrono::seconds(30);
  int64_t max_context = 0;  // 0: the model's own
  std::string kv;           // how keys and values are kept; empty: as the weights are
};

// False: nobody waits for it any more, and the opener is to give up.
using LoadProgress = std::function<bool(uint64_t bytes, uint64_t total)>;

// Opens the weights for answering. Called on the loader's thread; may take as long as it takes, and reports
// its progress at least every 64 MiB, where it can.
using ModelOpener = std::function<Result<std::unique_ptr<Decoder>>(const ModelFiles&, const OpenOptions&,
                                                                   const LoadProgress&)>;

struct BytesLoaded {
  uint64_t bytes = 0;
  uint64_t total = 0;
};

struct LoadWarning {
  std::string text;
};

struct OnlyOnHub {  // perhaps
  std::string name;
  std::string message;  // why it was not found here
};

// In this order: what was found (or why nothing was), warnings, progress, what was opened (or why not).
using LoaderEvent =
    std::variant<Result<ModelFiles>, OnlyOnHub, LoadWarning, BytesLoaded, Result<std::unique_ptr<Decoder>>>;

// None comes behind it, until the next start.
bool is_last(const LoaderEvent& event);

class Loader {
 public:
  Loader(ModelOpener opener, OpenOptions options)
      : opener_(std::move(opener)), options_(std::move(options)) {}
  ~Loader();  // stops, and waits for the opener's next report

  // Not before the last event of an earlier start has come.
  void start(const ModelChoice& choice);
  // The opener hears of it by its next report; the last event still comes.
  void stop() { stop_ = true; }

  Mailbox<LoaderEvent>& events() { return events_; }

 private:
  void run(const ModelChoice& choice);

  ModelOpener opener_;
  OpenOptions options_;
  Mailbox<LoaderEvent> events_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace bitctl
