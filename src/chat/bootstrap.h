// From nothing to a model that answers: the states, their texts, and what leads from one to the next. All
// pure; a Bootstrap is a snapshot, and next_bootstrap() makes the one that follows.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

namespace bitctl {

struct Bootstrap {
  struct Initializing {
    bool operator==(const Initializing&) const = default;
  };
  struct Downloading {
    std::string file = "Preparing...";
    int index = 0;       // 1 is the first
    int count = 4;       // config, tokenizer, tokenizer_config, weights: before more is known
    uint64_t bytes = 0;  // of all files
    uint64_t total = 0;  // 0: not known yet
    bool operator==(const Downloading&) const = default;
  };
  struct Loading {
    uint64_t bytes = 0;
    uint64_t total = 0;  // 0: not known yet
    bool weights_ready = false;
    bool text_ready = false;
    bool operator==(const Loading&) const = default;
  };
  struct Ready {
    bool operator==(const Ready&) const = default;
  };
  struct Failed {
    std::string reason;
    bool operator==(const Failed&) const = default;
  };
  struct NotAvailable {  // offline, and the model is not here
    bool operator==(const NotAvailable&) const = default;
  };

  std::string model;  // its name for people
  std::variant<Initializing, Downloading, Loading, Ready, Failed, NotAvailable> stage;

  template <typename Stage>
  bool is() const {
    return std::holds_alternative<Stage>(stage);
  }
  bool operator==(const Bootstrap&) const = default;
};

// One line: "Loading tiny...".
std::string state_text(const Bootstrap& state);
// "[=====>    ] 45% (2.1GB / 4.7GB)".
std::string progress_bar(uint64_t bytes, uint64_t total);

namespace bootstrap_event {
struct DownloadBegins {
  std::string model;
};
struct FileDownloads {
  std::string file;
  int index = 0;
  int count = 0;
  uint64_t bytes = 0;
  uint64_t total = 0;
};
struct ModelFound {
  std::string model;
};
struct BytesLoaded {
  uint64_t bytes = 0;
  uint64_t total = 0;
};
struct WeightsReady {};
struct TextReady {};
struct Failure {
  std::string reason;
};
struct NotHere {};
struct Retry {};
struct OtherModel {};
}  // namespace bootstrap_event

using BootstrapEvent =
    std::variant<bootstrap_event::DownloadBegins, bootstrap_event::FileDownloads, bootstrap_event::ModelFound,
                 bootstrap_event::BytesLoaded, bootstrap_event::WeightsReady, bootstrap_event::TextReady,
                 bootstrap_event::Failure, bootstrap_event::NotHere, bootstrap_event::Retry,
                 bootstrap_event::OtherModel>;

// An event that means nothing in a state leaves it as it is.
Bootstrap next_bootstrap(const Bootstrap& state, const BootstrapEvent& event);

}  // namespace bitctl
