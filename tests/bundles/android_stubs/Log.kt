package android.util

object Log {
    @JvmStatic
    fun i(tag: String, message: String): Int = log("I", tag, message)

    @JvmStatic
    fun w(tag: String, message: String): Int = log("W", tag, message)

    private fun log(level: String, tag: String, message: String): Int {
        println("$level/$tag: $message")
        return 0
    }
}
