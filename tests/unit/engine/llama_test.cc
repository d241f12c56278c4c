#include <gmock/gmock.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "unit/engine/tiny_llama.h"

namespace bitctl {
namespace {

using testing::FloatNear;
using testing::HasSubstr;
using testing::Pointwise;

const std::vector<int32_t> kIds = {3, 1, 4, 1, 5, 9, 2, 6, 5, 35};

TEST(LlamaOpen, TellsWhatItOpened) {
  OpenedLlama model{TinyLlama()};
  ASSERT_EQ(model.error(), "");
  EXPECT_EQ(model.info().vocab_size, 40);
  EXPECT_EQ(model.info().max_context, 64);
  EXPECT_STREQ(model.info().device, "cpu");
  EXPECT_STREQ(model.info().dtype, "float32");
}

TEST(LlamaOpen, LetsGoOfTheOwnerOnce) {
  OpenedLlama good{TinyLlama()};
  EXPECT_EQ(good.released(), 0);
  good.close();
  EXPECT_EQ(good.released(), 1);

  TinyLlama broken;
  broken.remove("model.norm.weight");
  EXPECT_EQ(OpenedLlama(std::move(broken)).released(), 1);
  TinyLlama foreign;
  foreign.config["model_type"] = "gpt2";
  EXPECT_EQ(OpenedLlama(std::move(foreign)).released(), 1);
}

TEST(LlamaOpen, RefusesDevicesAndContextsItDoesNotHave) {
  EXPECT_EQ(OpenedLlama(TinyLlama(), {.device = "cuda:0"}).error(),
            "device \"cuda:0\" is not implemented: this engine computes on the CPU");
  EXPECT_EQ(OpenedLlama(TinyLlama(), {.device = "cpu"}).error(), "");
  EXPECT_EQ(OpenedLlama(TinyLlama(), {.max_context = 65}).error(),
            "max_context 65 is not within the model's 64");
  EXPECT_EQ(OpenedLlama(TinyLlama(), {.max_context = 8}).info().max_context, 8);
}

struct BadTensors {
  const char* name;
  std::function<void(TinyLlama&)> damage;
  const char* error;
};

class LlamaTensors : public testing::TestWithParam<BadTensors> {};

TEST_P(LlamaTensors, DifferencesAreNamed) {
  TinyLlama llama;
  GetParam().damage(llama);
  EXPECT_EQ(OpenedLlama(std::move(llama)).error(),
            std::string("the tensors are not those of config.json: ") + GetParam().error);
}

std::mt19937 random_numbers(1);

INSTANTIATE_TEST_SUITE_P(
    Each, LlamaTensors,
    testing::Values(BadTensors{"missing", [](TinyLlama& llama) { llama.remove("model.norm.weight"); },
                               "model.norm.weight is missing"},
                    BadTensors{"extra",
                               [](TinyLlama& llama) {
                                 llama.add("model.layers.2.mlp.up_proj.weight", {24, 16}, random_numbers);
                               },
                               "model.layers.2.mlp.up_proj.weight is not expected"},
                    BadTensors{"misshaped",
                               [](TinyLlama& llama) {
                                 llama.tensor("model.layers.1.mlp.up_proj.weight").shape = {16, 24};
                               },
                               "model.layers.1.mlp.up_proj.weight is F32 [16, 24] instead of [24, 16]"},
                    BadTensors{"another_dtype",
                               [](TinyLlama& llama) {
                                 llama.tensor("model.norm.weight").dtype = "BF16";
                                 llama.tensor("model.norm.weight").bytes.resize(32);
                               },
                               "model.norm.weight is BF16 [16] and the embedding F32"},
                    BadTensors{"no_head",
                               [](TinyLlama& llama) { llama.config["tie_word_embeddings"] = false; },
                               "lm_head.weight is missing"},
                    BadTensors{"another_head",
                               [](TinyLlama& llama) {
                                 llama.add("lm_head.weight", {40, 16}, random_numbers);
                               },
                               "lm_head.weight is not the embedding, though tie_word_embeddings is true"},
                    BadTensors{"unexpected_bias",
                               [](TinyLlama& llama) {
                                 llama.add("model.layers.0.self_attn.q_proj.bias", {16}, random_numbers);
                               },
                               "model.layers.0.self_attn.q_proj.bias is not expected"},
                    BadTensors{"many",
                               [](TinyLlama& llama) {
                                 for (const char* part : {"input_layernorm", "self_attn.q_proj",
                                                          "self_attn.k_proj", "self_attn.v_proj",
                                                          "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"})
                                   llama.remove(std::string("model.layers.0.") + part + ".weight");
                               },
                               "model.layers.0.input_layernorm.weight is missing; "
                               "model.layers.0.self_attn.q_proj.weight is missing; "
                               "model.layers.0.self_attn.k_proj.weight is missing; "
                               "model.layers.0.self_attn.v_proj.weight is missing; "
                               "model.layers.0.self_attn.o_proj.weight is missing; and 2 more"}),
    [](const auto& info) { return info.param.name; });

TEST(LlamaOpen, RefusesATensorWhoseBytesLie) {
  TinyLlama llama;
  llama.tensor("model.norm.weight").bytes.resize(60);
  EXPECT_EQ(OpenedLlama(std::move(llama)).error(),
            "torch: tensor \"model.norm.weight\": F32 [16] takes 64 bytes, the file gives it 60");
}

TEST(LlamaOpen, RefusesWeightsItCannotComputeIn) {
  TinyLlama llama;
  for (auto& tensor : llama.tensors) {
    tensor.dtype = "F64";
    tensor.bytes += tensor.bytes;
  }
  EXPECT_EQ(OpenedLlama(std::move(llama)).error(),
            "weights of dtype F64 are not implemented (known: F32, BF16, F16)");
}

TEST(LlamaOpen, TakesWhatOldCheckpointsCarry) {
  TinyLlama llama;
  llama.add("model.layers.0.self_attn.rotary_emb.inv_freq", {2}, random_numbers);
  OwnedTensor head = llama.tensor("model.embed_tokens.weight");
  head.name = "lm_head.weight";
  llama.tensors.push_back(head);
  EXPECT_EQ(OpenedLlama(std::move(llama)).error(), "");
}

TEST(LlamaForward, PiecesAndRewindsGiveTheLogitsOfTheWhole) {
  OpenedLlama model{TinyLlama()};
  const auto whole = model.forward(kIds, 0);
  ASSERT_EQ(whole.size(), 40u);
  for (const auto& pieces : {std::vector<size_t>{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {4, 6}, {9, 1}, {1, 8, 1}}) {
    size_t position = 0;
    std::vector<float> logits;
    for (const size_t piece : pieces) {
      const auto from = kIds.begin() + static_cast<long>(position);
      logits = model.forward({from, from + static_cast<long>(piece)}, position);
      position += piece;
    }
    EXPECT_THAT(logits, Pointwise(FloatNear(1e-4), whole));
  }
  // Another continuation from position 5, then back to the first: nothing of it is left.
  ASSERT_NE(model.forward({30, 31, 32, 33, 34}, 5), std::vector<float>{});
  EXPECT_THAT(model.forward({kIds.begin() + 5, kIds.end()}, 5), Pointwise(FloatNear(1e-4), whole));
}

TEST(LlamaForward, UnalignedWeightsGiveTheSameLogits) {
  TinyLlama shifted;
  shifted.shift = 1;
  EXPECT_EQ(OpenedLlama(std::move(shifted)).forward(kIds, 0), OpenedLlama(TinyLlama()).forward(kIds, 0));
}

TEST(LlamaForward, RefusesWhatItCannotRunAndGoesOn) {
  OpenedLlama model(TinyLlama(), {.max_context = 12});
  EXPECT_EQ((model.forward({}, 0), model.error()), "no token ids");
  EXPECT_EQ((model.forward({1}, 1), model.error()), "position 1 leaves a gap: the cache holds 0 positions");
  const auto logits = model.forward(kIds, 0);
  EXPECT_EQ((model.forward({40}, 10), model.error()), "token id 40 is outside the vocabulary of 40");
  EXPECT_EQ((model.forward({1, -1}, 10), model.error()), "token id -1 is outside the vocabulary of 40");
  EXPECT_EQ((model.forward({1, 2, 3}, 10), model.error()),
            "the context is full: 3 tokens at position 10 of 12");
  EXPECT_EQ((model.forward({1}, SIZE_MAX), model.error()).rfind("position ", 0), 0u);
  EXPECT_EQ(model.forward({1, 2}, 10).size(), 40u);
  EXPECT_EQ((model.forward({1}, 12), model.error()), "the context is full: 1 tokens at position 12 of 12");
  EXPECT_EQ(model.forward(kIds, 0), logits);
  EXPECT_EQ(model.forward({1}, 2).size(), 40u);  // forgets what stood at 3 and after
  EXPECT_EQ((model.forward({1}, 4), model.error()), "position 4 leaves a gap: the cache holds 3 positions");
}

TEST(LlamaForward, SeveralModelsRunInSeveralThreads) {
  const auto alone = OpenedLlama(TinyLlama()).forward(kIds, 0);
  std::vector<std::vector<float>> together(4);
  std::vector<std::thread> threads;
  for (auto& logits : together)
    threads.emplace_back([&logits] {
      OpenedLlama model(TinyLlama(), {.threads = 2});
      for (int round = 0; round < 50; ++round) logits = model.forward(kIds, 0);
    });
  for (auto& thread : threads) thread.join();
  for (const auto& logits : together) EXPECT_EQ(logits, alone);
}

// The threads that libtorch starts must never be the ones that a signal is delivered to.
TEST(LlamaForward, ItsThreadsHaveSignalsBlocked) {
  std::thread([] {
    // Large enough that libtorch divides the work.
    const size_t count = 1 << 20;
    TinyLlama llama;
    llama.config["vocab_size"] = count / 16;
    auto& embedding = llama.tensor("model.embed_tokens.weight");
    embedding.shape = {count / 16, 16};
    embedding.bytes.resize(count * 4);
    OpenedLlama model(std::move(llama), {.threads = 3});
    ASSERT_FALSE(model.forward({1, 2, 3}, 0).empty()) << model.error();
    int others = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      const std::string id = task.path().filename();
      if (id == std::to_string(::getpid()) || id == std::to_string(::gettid())) continue;
      std::ifstream status(task.path() / "status");
      for (std::string line; std::getline(status, line);)
        if (line.starts_with("SigBlk:")) {
          const uint64_t mask = std::stoull(line.substr(8), nullptr, 16);
          EXPECT_TRUE(mask & (1ull << (SIGINT - 1))) << line;
          EXPECT_TRUE(mask & (1ull << (SIGTERM - 1))) << line;
          ++others;
        }
    }
    EXPECT_GT(others, 0);
  }).join();
}

}  // namespace
}  // namespace bitctl
