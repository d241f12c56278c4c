#include "chat/bootstrap.h"

#include <gtest/gtest.h>

#include "chat/router.h"

namespace bitctl {
namespace {

using State = Bootstrap;
namespace event = bootstrap_event;

const State kInitializing{"tiny", State::Initializing{}};
const State kDownloading{"tiny", State::Downloading{"tokenizer.json", 2, 4}};
const State kLoading{"tiny", State::Loading{}};
const State kHalf{"tiny", State::Loading{10, 100, true, false}};
const State kReady{"tiny", State::Ready{}};
const State kFailed{"tiny", State::Failed{"network error"}};
const State kNotAvailable{"tiny", State::NotAvailable{}};

TEST(Bootstrap, TheTextsAreThese) {
  EXPECT_EQ(state_text({"Qwen 3B", State::Initializing{}}), "Initializing...");
  EXPECT_EQ(state_text({"Qwen 3B", State::Downloading{"tokenizer.json", 2, 4}}),
            "Downloading Qwen 3B (2/4): tokenizer.json");
  EXPECT_EQ(state_text({"Qwen 3B", State::Downloading{}}), "Downloading Qwen 3B (0/4): Preparing...");
  EXPECT_EQ(state_text({"Qwen 3B", State::Loading{}}), "Loading Qwen 3B...");
  EXPECT_EQ(state_text({"Qwen 3B", State::Ready{}}), "✓ Qwen 3B ready");
  EXPECT_EQ(state_text({"Qwen 3B", State::Failed{"network error"}}), "✗ Failed: network error");
  EXPECT_EQ(state_text({"Qwen 3B", State::NotAvailable{}}), "⚠ Offline mode - model not available");
}

TEST(Bootstrap, TheProgressBar) {
  EXPECT_EQ(progress_bar(2'100'000'000, 4'700'000'000), "[=====>    ] 45% (2.1GB / 4.7GB)");
  EXPECT_EQ(progress_bar(0, 100), "[>         ] 0% (0.0GB / 0.0GB)");
  EXPECT_EQ(progress_bar(5, 5), "[==========] 100% (0.0GB / 0.0GB)");
  EXPECT_EQ(progress_bar(0, 0), "[>         ] 0% (0.0GB / 0.0GB)");
}

struct Step {
  const char* name;
  State from;
  BootstrapEvent happens;
  State to;
};

class Steps : public testing::TestWithParam<Step> {};

TEST_P(Steps, LeadWhereTheTableSays) {
  const State before = GetParam().from;
  EXPECT_EQ(next_bootstrap(GetParam().from, GetParam().happens), GetParam().to);
  EXPECT_EQ(GetParam().from, before) << "a snapshot never changes";
}

const event::Failure kFailure{"network error"};
const event::ModelFound kFound{"tiny"};
const event::FileDownloads kFile{"tokenizer.json", 2, 4};

INSTANTIATE_TEST_SUITE_P(
    Table, Steps,
    testing::Values(
        Step{"found", {"", State::Initializing{}}, kFound, kLoading},
        Step{"downloads",
             {"", State::Initializing{}},
             event::DownloadBegins{"tiny"},
             {"tiny", State::Downloading{}}},
        Step{"downloads_late", kHalf, event::DownloadBegins{"other"}, kHalf},
        Step{"downloads_when_ready", kReady, event::DownloadBegins{"other"}, kReady},
        Step{"downloads_its_first", {"tiny", State::Downloading{}}, kFile, kDownloading},
        Step{"downloads_nothing_yet", kInitializing, kFile, kInitializing},
        Step{"downloads_bytes",
             kDownloading,
             event::FileDownloads{"tokenizer.json", 2, 4, 10, 100},
             {"tiny", State::Downloading{"tokenizer.json", 2, 4, 10, 100}}},
        Step{"downloads_next",
             kDownloading,
             event::FileDownloads{"model.safetensors", 4, 4},
             {"tiny", State::Downloading{"model.safetensors", 4, 4}}},
        Step{"downloaded", kDownloading, kFound, kLoading},
        Step{"bytes", kLoading, event::BytesLoaded{10, 100}, {"tiny", State::Loading{10, 100}}},
        Step{"weights_first", {"tiny", State::Loading{10, 100}}, event::WeightsReady{}, kHalf},
        Step{"then_text", kHalf, event::TextReady{}, kReady},
        Step{"text_first", kLoading, event::TextReady{}, {"tiny", State::Loading{0, 0, false, true}}},
        Step{"then_weights", {"tiny", State::Loading{0, 0, false, true}}, event::WeightsReady{}, kReady},
        Step{"weights_twice", kHalf, event::WeightsReady{}, kHalf},
        Step{"fails_early", kInitializing, kFailure, kFailed},
        Step{"fails_downloading", kDownloading, kFailure, kFailed},
        Step{"fails_loading", kHalf, kFailure, kFailed}, Step{"fails_when_ready", kReady, kFailure, kFailed},
        Step{"the_first_reason_stays", kFailed, event::Failure{"another"}, kFailed},
        Step{"late_weights", kFailed, event::WeightsReady{}, kFailed},
        Step{"late_text", kFailed, event::TextReady{}, kFailed},
        Step{"late_bytes", kReady, event::BytesLoaded{1, 2}, kReady},
        Step{"late_file", kReady, kFile, kReady}, Step{"found_again_when_ready", kReady, kFound, kReady},
        Step{"offline", kInitializing, event::NotHere{}, kNotAvailable},
        Step{"offline_when_ready", kReady, event::NotHere{}, kReady},
        Step{"retry", kFailed, event::Retry{}, kInitializing},
        Step{"retry_offline", kNotAvailable, event::Retry{}, kInitializing},
        Step{"retry_when_ready", kReady, event::Retry{}, kReady},
        Step{"retry_when_loading", kHalf, event::Retry{}, kHalf}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Router, EveryStateWithAndWithoutWaitingAndARemote) {
  for (const State& state : {kInitializing, kDownloading, kLoading, kHalf}) {
    EXPECT_EQ(route_prompt(state, false, false), (Routing{Route::queue, "model_not_ready"}))
        << state_text(state);
    EXPECT_EQ(route_prompt(state, true, false), (Routing{Route::explain, "model_not_ready"}));
    for (const bool no_wait : {false, true})
      EXPECT_EQ(route_prompt(state, no_wait, true), (Routing{Route::forward, "model_not_ready"}));
  }
  for (const bool no_wait : {false, true}) {
    for (const bool remote : {false, true}) {
      EXPECT_EQ(route_prompt(kReady, no_wait, remote), Routing{Route::local});
      EXPECT_EQ(route_prompt(kFailed, no_wait, remote), (Routing{Route::explain, "load_failed"}));
      EXPECT_EQ(route_prompt(kNotAvailable, no_wait, remote), (Routing{Route::explain, "offline"}));
    }
  }
}

}  // namespace
}  // namespace bitctl
