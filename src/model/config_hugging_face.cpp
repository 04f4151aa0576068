// ModelConfig from a Hugging Face config.json: what all families share. What each of them says itself is read by its
// row of the table (families.cpp, config_families.cpp).
#include <steer/model/config.hpp>

#include "io/strict_json.hpp"
#include "model/config_check.hpp"
#include "model/config_reader.hpp"
#include "model/families.hpp"
#include "model/stored_weights.hpp"

namespace steer {
namespace {

using model::detail::ConfigReader;
constexpr auto kFromHuggingFace = "ModelConfig::from_hugging_face";

/// Keys that do not change what a forward pass in f32 computes at inference, whatever their value.
constexpr std::string_view kIgnored[] = {
    // bookkeeping
    "_name_or_path", "architectures", "auto_map", "transformers_version", "torch_dtype", "dtype", "model_type",
    "name_or_path", "unsloth_version", "unsloth_fixed", "_attn_implementation", "_attn_implementation_autoset",
    "_attn_implementation_internal", "attn_implementation", "_flash_attn_2_enabled", "_commit_hash",
    "_experts_implementation", "_experts_implementation_internal", "_sliding_window_pattern", "chunk_size_feed_forward",
    "return_dict", "output_attentions", "output_hidden_states", "torchscript", "tokenizer_class",
    "special_tokens_map_file", "chat_template", "task_specific_params", "id2label", "label2id", "problem_type",
    "is_decoder", "is_encoder_decoder", "is_llama_config", "_num_labels", "num_labels", "n_ctx", "finetuning_task",
    "license", "language", "tags", "library_name", "transformers.js_config", "prefix", "use_bfloat16", "tf_legacy_loss",
    "_from_model_config", "model_max_length",
    // what a sequence may be, not what is computed; the family reads max_position_embeddings
    "max_sequence_length", "max_seq_len", "max_seq_length", "seq_length",
    // dropout, initialisation, losses and trainers' switches
    "attention_dropout", "hidden_dropout", "classifier_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop",
    "initializer_range", "gradient_checkpointing", "gradient_checkpointing_kwargs", "use_liger_kernel",
    "z_loss_coefficient", "router_aux_loss_coef", "output_router_logits", "initializer_cutoff_factor",
    // heads and summaries that a language model does not have
    "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
    // generation and caching
    "use_cache", "cache_implementation", "pad_token_id", "sep_token_id", "decoder_start_token_id", "do_sample",
    "temperature", "top_p", "top_k", "typical_p", "max_length", "min_length", "max_new_tokens", "repetition_penalty",
    "bad_words_ids", "begin_suppress_tokens", "suppress_tokens", "diversity_penalty", "early_stopping",
    "encoder_no_repeat_ngram_size", "no_repeat_ngram_size", "exponential_decay_length_penalty", "length_penalty",
    "forced_bos_token_id", "forced_eos_token_id", "num_beam_groups", "num_beams", "num_return_sequences",
    "output_scores", "remove_invalid_values", "return_dict_in_generate", "cross_attention_hidden_size",
    // how a computation is carried out, not what it gives
    "pretraining_tp", "reorder_and_upcast_attn", "rope_interleaved"};

/// What multimodal files say beside their text tower.
constexpr std::string_view kOfOtherTowers[] = {"vision_config",
                                               "audio_config",
                                               "mm_tokens_per_image",
                                               "image_token_index",
                                               "image_token_id",
                                               "boi_token_index",
                                               "boi_token_id",
                                               "eoi_token_index",
                                               "eoi_token_id",
                                               "video_token_id",
                                               "vision_feature_layer",
                                               "spatial_merge_size",
                                               "multimodal_projector_bias",
                                               "projector_hidden_act",
                                               "vision_start_token_id",
                                               "vision_end_token_id",
                                               "vision_token_id",
                                               "hidden_size",
                                               "language_model_only"};

std::vector<std::int64_t> ids(ConfigReader& in, const char* key) {
  if (!in.has(key)) return {};
  const auto& value = in.at(key);
  if (value.is_number_integer()) return {value.get<std::int64_t>()};
  std::vector<std::int64_t> out;
  if (value.is_array())
    for (const auto& id : value)
      if (id.is_number_integer()) out.push_back(id.get<std::int64_t>());
  require(value.is_array() && out.size() == value.size(), ErrorCode::config, kFromHuggingFace,
          "expected {} to be a token id or a list of them but got {}; correct the file", key, io::detail::brief(value));
  return out;
}

void add_ids(std::vector<std::int64_t>& to, const std::vector<std::int64_t>& more) {
  for (const auto id : more)
    if (std::find(to.begin(), to.end(), id) == to.end()) to.push_back(id);
}

/// A model with another head than the unembedding computes no logits.
void require_language_model(const nlohmann::json& config) {
  const auto found = config.find("architectures");
  if (found == config.end() || !found->is_array()) return;
  for (const auto& entry : *found) {
    if (!entry.is_string()) continue;
    const auto& name = entry.get_ref<const std::string&>();
    for (const char* other : {"ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering",
                              "ForMultipleChoice", "ForMaskedLM", "RewardModel", "ForReward"})
      require(name.find(other) == std::string::npos, ErrorCode::unsupported, kFromHuggingFace,
              "expected a language model but got architectures = {}, which has another head and no logits over the "
              "vocabulary; give the model it was made from",
              io::detail::brief(*found));
  }
}

/// Which family a multimodal file holds: several may be wrapped alike.
const model::detail::Family& text_tower(ConfigReader& outer, std::string_view wrapper) {
  const auto& text = outer.at("text_config");
  const auto named = text.is_object() ? text.find("model_type") : text.end();
  const std::string type = named != text.end() && named->is_string() ? named->get<std::string>() : std::string();
  std::string known;
  for (const auto& family : model::detail::families()) {
    if (family.wrapper != wrapper) continue;
    if (type.empty() || family.model_type == type) return family;
    known += (known.empty() ? "" : " or ") + std::string(family.model_type);
  }
  fail(ErrorCode::unsupported, kFromHuggingFace,
       "expected text_config.model_type {} but got {}; add the family as docs/adding-a-family.md says", known,
       io::detail::quote(type));
}

void read_text_tower(ConfigReader& outer, const model::detail::Family& family,
                     std::span<const std::string> allow_unknown, ModelConfig& c) {
  const auto& text = outer.at("text_config");
  require(text.is_object(), ErrorCode::config, kFromHuggingFace, "expected text_config to be an object but got {}",
          io::detail::brief(text));
  ConfigReader in(text, kFromHuggingFace, "text_config.");
  in.only("model_type", family.model_type);
  family.read(in, family, c);
  c.tied_embeddings = outer.boolean("tie_word_embeddings", c.tied_embeddings);
  c.bos_ids = ids(outer, "bos_token_id");
  c.eos_ids = ids(outer, "eos_token_id");
  add_ids(c.bos_ids, ids(in, "bos_token_id"));
  add_ids(c.eos_ids, ids(in, "eos_token_id"));
  in.finish(kIgnored, allow_unknown, &c.warnings);
}

}  // namespace

ModelConfig ModelConfig::from_hugging_face(const nlohmann::json& config, std::span<const std::string> allow_unknown) {
  require(config.is_object(), ErrorCode::config, kFromHuggingFace,
          "expected a JSON object but got {}; give the content of config.json", config.type_name());
  ConfigReader in(config, kFromHuggingFace);
  const auto type = in.text("model_type");
  const model::detail::Family* family = model::detail::find_model_type(type);
  require(family, ErrorCode::unsupported, kFromHuggingFace,
          "expected a model_type of {} but got {}{}; take a model of one of these families, or add it as "
          "docs/adding-a-family.md says",
          model::detail::model_types(), io::detail::quote(type),
          in.has("text_config") ? ", which wraps a language model in a way that steer does not read" : "");
  if (type == family->wrapper) family = &text_tower(in, type);
  require_language_model(config);
  ModelConfig c;
  for (const char* key : {"quantization_config", "quantization"})  // the second is MLX's
    if (in.has(key)) c.stored = model::detail::read_quantisation(in.at(key));
  c.family = family->name;
  if (const auto name = config.find("_name_or_path"); name != config.end() && name->is_string())
    c.name = name->get<std::string>();
  std::vector<std::string_view> ignored(std::begin(kIgnored), std::end(kIgnored));
  if (type == family->wrapper) {
    read_text_tower(in, *family, allow_unknown, c);
    ignored.insert(ignored.end(), std::begin(kOfOtherTowers), std::end(kOfOtherTowers));
  } else {
    family->read(in, *family, c);
    c.bos_ids = ids(in, "bos_token_id");
    c.eos_ids = ids(in, "eos_token_id");
  }
  in.finish(ignored, allow_unknown, &c.warnings);
  model::detail::complete_and_check(c, kFromHuggingFace);
  return c;
}

}  // namespace steer
