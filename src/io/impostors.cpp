#include "io/impostors.hpp"

namespace steer::io::detail {
namespace {

constexpr std::string_view kSignIn =
    "the server sent a page, not the file: download it again, signed in where the model asks for that";
constexpr Impostor kImpostors[] = {
    {"version https://git-lfs", "a Git LFS pointer, not the file it stands for",
     "run `git lfs pull`, or download the file"},
    {"<!DOCTYPE", "a web page", kSignIn},
    {"<!doctype", "a web page", kSignIn},
    {"<html", "a web page", kSignIn},
    {"\x1f\x8b", "a gzip file", "unpack it first"},
    {"\x89HDF", "an HDF5 file", "save the weights as safetensors from Python"},
    {"lmgg", "a ggml file from before GGUF", "convert the model again with a newer llama.cpp"},
    {"tjgg", "a ggml file from before GGUF", "convert the model again with a newer llama.cpp"},
    {"\xff\xfe", "UTF-16 text", "save it as UTF-8"},
    {"\xfe\xff", "UTF-16 text", "save it as UTF-8"},
};

}  // namespace

const Impostor* find_impostor(std::string_view bytes) {
  for (const auto& impostor : kImpostors)
    if (bytes.starts_with(impostor.begin)) return &impostor;
  return nullptr;
}

}  // namespace steer::io::detail
