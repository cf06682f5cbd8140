package android.util

object Log {
    @JvmStatic
    fun i(tag: String, message: String): Int = say("I", tag, message)

    @JvmStatic
    fun w(tag: String, message: String): Int = say("W", tag, message)

    private fun say(level: String, tag: String, message: String): Int {
        println("$level/$tag: $message")
        return 0
    }
}
