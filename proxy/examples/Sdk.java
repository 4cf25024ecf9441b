// The DashScope SDK for Java (com.alibaba:dashscope-sdk-java). It also reads DASHSCOPE_HTTP_BASE_URL.
Constants.baseHttpApiUrl = "http://127.0.0.1:8080/api/v1";
var call = GenerationParam.builder()
    .apiKey(System.getenv("DASHSCOPE_API_KEY"))
    .model("deepseek-v3")
    .messages(List.of(Message.builder().role(Role.USER.getValue()).content("你是谁？").build()))
    .resultFormat(GenerationParam.ResultFormat.MESSAGE)
    .incrementalOutput(true)
    .build();
new Generation().streamCall(call).blockingForEach(
    packet -> System.out.print(packet.getOutput().getChoices().get(0).getMessage().getContent()));
